// Compiled by javac, run by a virtual machine that lives within the limits. ☕
import java.util.stream.IntStream;

public class Hello {
    static boolean isPrime(int number) {
        return number > 1 && IntStream.rangeClosed(2, (int) Math.sqrt(number)).noneMatch(d -> number % d == 0);
    }

    public static void main(String[] args) {
        System.out.println("☕ Hello from Java " + Runtime.version().feature() + "!");
        long count = IntStream.range(0, 1_000_000).parallel().filter(Hello::isPrime).count();
        System.out.printf("There are %,d primes below a million.%n", count);
    }
}
