#include "patterns.h"

#include "kernel.h"

#include <string.h>
#include <time.h>

#define STEPS_BETWEEN_CHECKS 65536U

/* Decode the character at *text and advance. An invalid byte is a character of its own. */
static uint32_t next_character(const char **text)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *at = (const unsigned char *)*text;
    unsigned more = *at < 0xC2 ? 0 : *at < 0xE0 ? 1 : *at < 0xF0 ? 2 : *at < 0xF5 ? 3 : 0;
    uint32_t character = more == 0 ? *at : *at & 0x3FU >> more;
    for (unsigned i = 1; i <= more; i++) {
        if ((at[i] & 0xC0) != 0x80) /* also at the final NUL */
            more = 0;
        else
            character = character << 6 | (at[i] & 0x3FU);
    }
    bool surrogate = character >= 0xD800 && character <= 0xDFFF;
    if (*at >= 0x80 && (more == 0 || character < least[more] || character > 0x10FFFF || surrogate)) {
        more = 0;
        character = 0xDC00U + *at;
    }
    *text += 1 + more;
    return character;
}

size_t decode_name(const char *text, uint32_t *characters)
{
    size_t length = 0;
    while (*text != '\0')
        characters[length++] = next_character(&text);
    return length;
}

/* Return the bracket that closes the one before `inside`, which is never the first character. NULL: there is none. */
static const char *closing_bracket(const char *inside)
{
    if (*inside == '!')
        inside++;
    if (*inside == ']')
        inside++;
    return strchr(inside, ']');
}

/* Compile the contents of brackets. Returns the place of the next token.
 *
 * A range in the wrong order matches nothing. fnmatch drops it before it looks for a leading `!`, so `[z-a!b]` means `[!b]`, and
 * a range that then starts with `!` is a hyphen and the end of the range. */
static struct token *compile_set(const char *inside, const char *end, struct token *set)
{
    struct token *next = set + 1;
    bool negated = *inside == '!';
    if (negated)
        inside++;
    while (inside < end) {
        uint32_t low = next_character(&inside);
        uint32_t high = low;
        bool is_range = end - inside >= 2 && *inside == '-';
        if (is_range) {
            inside++;
            high = next_character(&inside);
        }
        if (low > high)
            continue;
        if (low == '!' && !negated && next == set + 1) {
            negated = true;
            if (!is_range)
                continue;
            *next++ = (struct token){.kind = TOKEN_RANGE, .low = '-', .high = '-'};
            low = high;
        }
        *next++ = (struct token){.kind = TOKEN_RANGE, .low = low, .high = high};
    }
    *set = (struct token){.kind = negated ? TOKEN_NOT_IN_SET : TOKEN_SET, .ranges = (uint32_t)(next - set - 1)};
    return next;
}

void pattern_compile(const char *text, struct token *tokens)
{
    while (*text != '\0') {
        const char *end = *text == '[' ? closing_bracket(text + 1) : NULL;
        if (end != NULL) {
            tokens = compile_set(text + 1, end, tokens);
            text = end + 1;
        } else if (*text == '*') {
            *tokens++ = (struct token){.kind = TOKEN_STAR};
            text++;
        } else if (*text == '?') {
            *tokens++ = (struct token){.kind = TOKEN_NOT_IN_SET, .ranges = 0};
            text++;
        } else {
            uint32_t character = next_character(&text);
            *tokens++ = (struct token){.kind = TOKEN_RANGE, .low = character, .high = character};
        }
    }
    *tokens = (struct token){.kind = TOKEN_END};
}

static bool in_range(const struct token *range, uint32_t character)
{
    return range->low <= character && character <= range->high;
}

/* Return whether a token other than a star or the end matches a character. */
static bool fits(const struct token *token, uint32_t character)
{
    if (token->kind == TOKEN_RANGE)
        return in_range(token, character);
    bool found = false;
    for (uint32_t i = 1; i <= token->ranges && !found; i++)
        found = in_range(token + i, character);
    return found == (token->kind == TOKEN_SET);
}

/* The first match of the tokens between two stars is as good as any later one, so only the last star needs backtracking. */
bool pattern_matches(const struct token *pattern, const uint32_t *name, size_t length, int64_t deadline_us)
{
    const struct token *behind_star = NULL;
    size_t at = 0, tried = 0; /* tried: start of the last attempt after the last star */
    size_t steps = 0;
    for (;;) {
        steps += 1 + pattern->ranges;
        if (steps >= STEPS_BETWEEN_CHECKS) {
            if (clock_us(CLOCK_MONOTONIC) >= deadline_us)
                return false;
            steps = 0;
        }
        if (pattern->kind == TOKEN_STAR) {
            behind_star = ++pattern;
            tried = at;
        } else if (pattern->kind == TOKEN_END && at == length) {
            return true;
        } else if (pattern->kind != TOKEN_END && at == length) {
            return false; /* a later start leaves even less */
        } else if (pattern->kind != TOKEN_END && fits(pattern, name[at])) {
            pattern += 1 + pattern->ranges;
            at++;
        } else if (behind_star != NULL) {
            pattern = behind_star;
            at = ++tried;
        } else {
            return false;
        }
    }
}
