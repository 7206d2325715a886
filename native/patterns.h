/* File name patterns as Python's fnmatch has them: `*`, which matches any text, folders included, `?`, `[...]` and `[!...]`. */
#ifndef FIREBOX_PATTERNS_H
#define FIREBOX_PATTERNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A compiled pattern is an array of tokens. */
struct token {
    enum { TOKEN_END, TOKEN_STAR, TOKEN_RANGE, TOKEN_SET, TOKEN_NOT_IN_SET } kind;
    uint32_t ranges;    /* of a set: how many ranges follow */
    uint32_t low, high; /* of a range; one character is a range as well */
};

/* Compile a pattern. tokens: room for one more than the pattern has bytes. */
void pattern_compile(const char *text, struct token *tokens);

/* Check whether a whole name matches. Takes at most the length of the name times that of the pattern. deadline_us: on the
 * monotonic clock; there it gives up, as if nothing matched. */
bool pattern_matches(const struct token *pattern, const uint32_t *name, size_t length, int64_t deadline_us);

/* Decode a name as os.fsdecode does: UTF-8, in which an invalid byte is a character as well. characters: room for as many as
 * the name has bytes. Returns their number. */
size_t decode_name(const char *text, uint32_t *characters);

#endif
