/* Runs a fuzzer's entry without libFuzzer: first each seed, then so many mutations of them, always the same for a number.
 *
 *   replay FILE...                    runs files
 *   replay MUTATIONS NUMBER FILE...   and mutations
 *
 * The input that a sanitizer objects to is written to standard error. */
#define FAKES_NOT_HERE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS = 64, LONGEST = 1 << 16, MUTATIONS_AT_ONCE = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
void __sanitizer_set_death_callback(void (*callback)(void));

static struct {
    uint8_t *data;
    size_t bytes;
} seeds[SEEDS];
static unsigned seed_count;
static uint8_t input[LONGEST];
static size_t input_bytes;
static uint64_t state;

/* Source: Marsaglia, "Xorshift RNGs". */
static size_t below(size_t bound)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return bound == 0 ? 0 : (size_t)(state >> 11) % bound;
}

static void show_input(void)
{
    fputs("input: ", stderr);
    for (size_t index = 0; index < input_bytes; ++index)
        fprintf(stderr, "%02x", input[index]);
    fputc('\n', stderr);
}

/* Run the input in memory of exactly its size. */
static void run_input(void)
{
    uint8_t *exact = malloc(input_bytes + (input_bytes == 0));
    if (exact == NULL)
        abort();
    memcpy(exact, input, input_bytes);
    LLVMFuzzerTestOneInput(exact, input_bytes);
    free(exact);
}

static void take_seed(size_t index)
{
    input_bytes = seeds[index].bytes;
    if (input_bytes > 0)
        memcpy(input, seeds[index].data, input_bytes);
}

/* Overwrite a number with one that is likely to matter. */
static void change_number(void)
{
    static const uint32_t numbers[] = {0, 1, 2, 31, 32, 33, 255, 4096, 65535, 1U << 16, 1U << 24, INT32_MAX, 1U << 31, UINT32_MAX - 1, UINT32_MAX};
    if (input_bytes < sizeof *numbers)
        return;
    uint32_t number = numbers[below(sizeof numbers / sizeof *numbers)];
    memcpy(input + below(input_bytes - sizeof number + 1), &number, sizeof number);
}

/* Copy bytes from one place to another, and move what is there. */
static void insert_bytes(void)
{
    size_t count = below(64) + 1, to = below(input_bytes + 1);
    if (count > input_bytes || input_bytes + count > LONGEST)
        return;
    uint8_t copied[64];
    memcpy(copied, input + below(input_bytes - count + 1), count);
    memmove(input + to + count, input + to, input_bytes - to);
    memcpy(input + to, copied, count);
    input_bytes += count;
}

static void remove_bytes(void)
{
    size_t count = below(64) + 1;
    if (count > input_bytes)
        return;
    size_t from = below(input_bytes - count + 1);
    memmove(input + from, input + from + count, input_bytes - from - count);
    input_bytes -= count;
}

static void mutate(void)
{
    for (size_t count = below(MUTATIONS_AT_ONCE) + 1; count > 0; --count) {
        size_t at = below(input_bytes);
        switch (below(6)) {
        case 0:
            if (input_bytes > 0)
                input[at] = (uint8_t)below(256);
            break;
        case 1:
            if (input_bytes > 0)
                input[at] ^= (uint8_t)(1U << below(8));
            break;
        case 2:
            change_number();
            break;
        case 3:
            insert_bytes();
            break;
        case 4:
            remove_bytes();
            break;
        default:
            if (below(8) == 0)
                input_bytes = at;
        }
    }
}

static void read_seed(const char *name)
{
    FILE *file = fopen(name, "rb");
    if (file == NULL || seed_count == SEEDS)
        abort();
    uint8_t *data = malloc(LONGEST);
    if (data == NULL)
        abort();
    seeds[seed_count].bytes = fread(data, 1, LONGEST, file);
    seeds[seed_count++].data = data;
    fclose(file);
}

int main(int count, char **words)
{
    unsigned long mutations = count > 3 ? strtoul(words[1], NULL, 10) : 0;
    state = count > 3 ? strtoull(words[2], NULL, 10) + 1 : 1;
    for (int index = count > 3 ? 3 : 1; index < count; ++index)
        read_seed(words[index]);
    __sanitizer_set_death_callback(show_input);
    for (size_t index = 0; index < seed_count; ++index) {
        take_seed(index);
        run_input();
    }
    for (; mutations > 0 && seed_count > 0; --mutations) {
        take_seed(below(seed_count));
        mutate();
        run_input();
    }
    return 0;
}
