/* Messages on SOCK_SEQPACKET links, as protocol.h declares them. */
#ifndef FIREBOX_MESSAGE_H
#define FIREBOX_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

enum { DESCRIPTORS_A_MESSAGE = 32 };

/* A received message. It lies in one static buffer, or is mapped: valid until the next one is received. */
struct message {
    const char *data;
    size_t bytes; /* 0: the other side is gone */
    int descriptors[DESCRIPTORS_A_MESSAGE];
    int descriptor_count;
};

/* Strings with a NUL after each. */
struct text {
    const char *data;
    uint32_t bytes;
};

/* Receive a message. Descriptors are the caller's to close; see `close_descriptors`. */
int receive_message(int link, struct message *message);

void close_descriptors(struct message *message);

/* Return the kind of a message, 0 where there is none. */
uint32_t message_kind(const struct message *message);

/* Take `bytes` off the front of a message. Returns NULL, having noted a failure, when it is shorter. */
const void *take(struct message *message, uint64_t bytes);

/* Take the text that a message ends with. It must end with a NUL. */
int take_text(struct message *message, uint32_t bytes, struct text *text);

/* Return a string of a text, "" for an offset outside. */
const char *string_at(const struct text *text, uint32_t offset);

/* Check that a text begins with so many strings, and return them as an array that ends with NULL; *offset is moved behind. */
const char **words_at(const struct text *text, uint32_t *offset, uint32_t count);

/* Send a structure and, after it, a text. */
int send_message(int link, const void *structure, size_t bytes, const char *text, const int *descriptors, int count);

/* Report `failure`. */
int send_failed(int link, uint32_t number, enum phase phase, uint32_t step);

#endif
