using System.Globalization;

List<int> squares = [1, 4, 9];
Point point = new(squares[^1], squares.Sum());
CultureInfo austria = CultureInfo.GetCultureInfo("de-AT");
bool isRight = point is { X: 9, Y: 14 } && 1.5.ToString(austria) == "1,5" && austria.DateTimeFormat.GetMonthName(1) == "Jänner";
Console.WriteLine(isRight ? "OK" : $"{point} {1.5.ToString(austria)}");

record Point(int X, int Y);
