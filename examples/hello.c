/* A real compiler, then native code: a picture of the Mandelbrot set. ⚙️ */
#include <complex.h>
#include <stdio.h>

int main(void) {
    puts("⚙️  Hello from C!");
    for (double y = -1.2; y <= 1.2; y += 0.15) {
        for (double x = -2.2; x <= 0.8; x += 0.05) {
            double complex z = 0;
            int step = 0;
            while (creal(z) * creal(z) + cimag(z) * cimag(z) < 4 && step < 27)
                z = z * z + x + y * I, step++;
            putchar(" .:-=+*#%@"[step / 3]);
        }
        putchar('\n');
    }
    return 0;
}
