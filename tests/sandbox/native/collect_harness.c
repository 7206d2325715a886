/* What native/collect.c and native/patterns.c do, for tests/sandbox/test_collect.py.
 *
 *   collect_harness collect FOLDER MAX_BYTES MAX_FILES BUDGET_MS PATTERN...   writes the stream to stdout
 *   collect_harness match                                                     reads strings from stdin, each with a NUL after it:
 *                                                                             pattern, name, ...; writes 0 or 1 for each pair
 */
#include "collect.h"
#include "patterns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Exactly as large as they have to be, so that AddressSanitizer sees every step beyond them. */
static bool match(const char *text, const char *name)
{
    struct token *tokens = malloc((strlen(text) + 1) * sizeof *tokens);
    uint32_t *characters = malloc(strlen(name) * sizeof *characters + 1);
    if (tokens == NULL || characters == NULL)
        abort();
    pattern_compile(text, tokens);
    bool matched = pattern_matches(tokens, characters, decode_name(name, characters), INT64_MAX);
    free(characters);
    free(tokens);
    return matched;
}

static int match_all(void)
{
    char *pattern = NULL, *name = NULL;
    size_t pattern_room = 0, name_room = 0;
    while (getdelim(&pattern, &pattern_room, '\0', stdin) > 0 && getdelim(&name, &name_room, '\0', stdin) > 0)
        putchar(match(pattern, name) ? '1' : '0');
    free(pattern);
    free(name);
    return 0;
}

static int collect_from(char **arguments, int count)
{
    struct collect request = {
        .kind = KIND_COLLECT,
        .max_bytes = strtoull(arguments[1], NULL, 10),
        .max_files = (uint32_t)strtoul(arguments[2], NULL, 10),
        .budget_ms = (uint32_t)strtoul(arguments[3], NULL, 10),
        .patterns = (uint32_t)(count - 4),
    };
    for (int i = 4; i < count; i++)
        request.text_bytes += (uint32_t)strlen(arguments[i]) + 1;
    char *text = malloc(request.text_bytes + 1);
    if (text == NULL || chdir(arguments[0]) != 0)
        return 1;
    char *end = text;
    for (int i = 4; i < count; i++)
        end = stpcpy(end, arguments[i]) + 1;
    collect(STDOUT_FILENO, &request, text);
    free(text);
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "match") == 0)
        return match_all();
    if (count >= 6 && strcmp(arguments[1], "collect") == 0)
        return collect_from(arguments + 2, count - 2);
    return 2;
}
