/* The input of the fuzzers of messages: a tape for the fakes, then messages, each sent through a real link.
 *
 *   u16 bytes of the tape, the tape, and for each message: u16 bytes, u8 how it is sent, the message
 *
 * How it is sent: 1 and 2: with so many descriptors; 4: as a long message, in a memfd; 8: which says to be longer than it is. */
#ifndef FIREBOX_FUZZ_MESSAGES_H
#define FIREBOX_FUZZ_MESSAGES_H

#include <stddef.h>
#include <stdint.h>

#include "message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Start a test with its tape. *data, *bytes: the rest. */
void begin_input(const uint8_t **data, size_t *bytes, bool inside);

/* Receive the next message. Its data lie in memory of exactly its size, until the next one, and its descriptors are made up.
 * Returns false at the end. */
bool next_message(const uint8_t **data, size_t *bytes, struct message *message);

#endif
