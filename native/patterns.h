/* File name patterns like those of Python's fnmatch: `*` (which also matches slashes), `?`, `[...]` and `[!...]`. */
#ifndef FIREBOX_PATTERNS_H
#define FIREBOX_PATTERNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A compiled pattern is an array of tokens. */
struct token {
    enum { TOKEN_END, TOKEN_STAR, TOKEN_RANGE, TOKEN_SET, TOKEN_NOT_IN_SET } kind;
    uint32_t ranges;    /* of a set: the number of ranges that follow */
    uint32_t low, high; /* of a range; a single character is a range too */
};

/* Compile a pattern. tokens: room for one more than the pattern has bytes. */
void pattern_compile(const char *text, struct token *tokens);

/* Return whether a whole name matches. Takes at most length of the name times length of the pattern steps. deadline_us: of the
 * monotonic clock; after it nothing matches. */
bool pattern_matches(const struct token *pattern, const uint32_t *name, size_t length, int64_t deadline_us);

/* Decode a name like os.fsdecode: UTF-8, with surrogates for invalid bytes. characters: room for as many as the name has bytes.
 * Returns their number. */
size_t decode_name(const char *text, uint32_t *characters);

#endif
