#include <math.h>
#include <pthread.h>
#include <stdio.h>

static void *half(void *number) {
    *(double *)number = sqrt(*(double *)number);
    return NULL;
}

int main(void) {
    double number = 4;
    pthread_t thread;
    pthread_create(&thread, NULL, half, &number);
    pthread_join(thread, NULL);
    puts(number == 2 ? "OK" : "not OK");
    return 0;
}
