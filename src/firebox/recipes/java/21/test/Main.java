import java.util.List;
import java.util.stream.Collectors;

public class Main {
    record Letter(String value) {}

    public static void main(String[] args) {
        System.out.println(List.of(new Letter("O"), new Letter("K")).stream().map(Letter::value).collect(Collectors.joining()));
    }
}
