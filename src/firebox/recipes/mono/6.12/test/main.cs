class Test
{
    static void Main() { System.Console.WriteLine("OK"); }
}
