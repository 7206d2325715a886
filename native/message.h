/* Messages of protocol.h on SOCK_SEQPACKET links. */
#ifndef FIREBOX_MESSAGE_H
#define FIREBOX_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

enum { DESCRIPTORS_A_MESSAGE = 32 };

/* A received message, in one static buffer or mapped: valid until the next one is received. */
struct message {
    const char *data;
    size_t bytes; /* 0: the link is closed */
    int descriptors[DESCRIPTORS_A_MESSAGE];
    int descriptor_count;
};

/* NUL-terminated strings. */
struct text {
    const char *data;
    uint32_t bytes;
};

/* Receive a message. The caller closes its descriptors: `close_descriptors`. */
int receive_message(int link, struct message *message);

void close_descriptors(struct message *message);

/* Return the kind of a message, 0 for one that is too short. */
uint32_t message_kind(const struct message *message);

/* Consume `bytes` from the front of a message. Returns NULL and sets `failure` when it is shorter. */
const void *take(struct message *message, uint64_t bytes);

/* Consume the text at the end of a message. It must end with a NUL. */
int take_text(struct message *message, uint32_t bytes, struct text *text);

/* Return the string at an offset, "" outside of the text. */
const char *string_at(const struct text *text, uint32_t offset);

/* Return `count` strings from *offset on as an array that ends with NULL. Advances *offset. Returns NULL for fewer strings. */
const char **words_at(const struct text *text, uint32_t *offset, uint32_t count);

/* Send a structure followed by a text. */
int send_message(int link, const void *structure, size_t bytes, const char *text, const int *descriptors, int count);

/* Report `failure`. */
int send_failed(int link, uint32_t number, enum phase phase, uint32_t step);

#endif
