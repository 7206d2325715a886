/* Fuzz native/patterns.c: a pattern, a NUL, a name. */
#include "patterns.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Return a string that ends exactly where its memory ends. */
static char *string_of(const uint8_t *data, size_t bytes)
{
    char *string = malloc(bytes + 1);
    if (string == NULL)
        abort();
    if (bytes > 0)
        memcpy(string, data, bytes);
    string[bytes] = '\0';
    return string;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const uint8_t *end = bytes > 0 ? memchr(data, '\0', bytes) : NULL;
    size_t pattern_bytes = end != NULL ? (size_t)(end - data) : bytes;
    size_t name_begins = end != NULL ? pattern_bytes + 1 : bytes;
    char *pattern = string_of(data, pattern_bytes);
    char *name = string_of(data + name_begins, bytes - name_begins);
    struct token *tokens = malloc((strlen(pattern) + 1) * sizeof *tokens);
    uint32_t *characters = malloc(strlen(name) * sizeof *characters + 1);
    if (tokens == NULL || characters == NULL)
        abort();
    pattern_compile(pattern, tokens);
    size_t length = decode_name(name, characters);
    if (length > strlen(name))
        abort();
    bool matched = pattern_matches(tokens, characters, length, INT64_MAX);
    if (strspn(pattern, "*") == strlen(pattern) && matched != (*pattern != '\0' || length == 0))
        abort();
    free(characters);
    free(tokens);
    free(name);
    free(pattern);
    return 0;
}
