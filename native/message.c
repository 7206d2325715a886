#include "message.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel.h"

static _Alignas(8) char buffer[PROTOCOL_MESSAGE_BYTES];

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(DESCRIPTORS_A_MESSAGE * sizeof(int))];
};

/* Replace a LongMessage by the message in its memfd. */
static int map_long(struct message *message)
{
    const struct long_message *where = take(message, sizeof *where);
    struct stat status;
    if (where == NULL || message->descriptor_count == 0)
        return fail("message", EINVAL);
    int memory = message->descriptors[--message->descriptor_count];
    uint64_t bytes = where->bytes;
    bool whole = fstat(memory, &status) == 0 && bytes > 0 && bytes <= PROTOCOL_LONG_MESSAGE_BYTES &&
                 (uint64_t)status.st_size >= bytes;
    const char *data = whole ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, memory, 0) : MAP_FAILED;
    close(memory);
    if (data == MAP_FAILED)
        return fail("message", whole ? errno : EINVAL);
    message->data = data;
    message->bytes = bytes;
    return 0;
}

int receive_message(int link, struct message *message)
{
    union control control;
    struct iovec vector = {buffer, sizeof buffer};
    struct msghdr header = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    *message = (struct message){.data = buffer};
    long got;
    do
        got = recvmsg(link, &header, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == ECONNRESET ? 0 : fail("recvmsg", errno);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header); /* there is room for only one */
    if (rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(message->descriptors, CMSG_DATA(rights), count * sizeof(int));
        message->descriptor_count = (int)count;
    }
    message->bytes = (size_t)got;
    if (message_kind(message) == KIND_LONG)
        return map_long(message);
    return 0;
}

void close_descriptors(struct message *message)
{
    while (message->descriptor_count > 0)
        close(message->descriptors[--message->descriptor_count]);
}

uint32_t message_kind(const struct message *message)
{
    uint32_t kind = 0;
    if (message->bytes >= sizeof kind)
        memcpy(&kind, message->data, sizeof kind);
    return kind;
}

const void *take(struct message *message, uint64_t bytes)
{
    if (bytes > message->bytes) {
        fail("message", EBADMSG);
        return NULL;
    }
    const void *here = message->data;
    message->data += bytes;
    message->bytes -= bytes;
    return here;
}

int take_text(struct message *message, uint32_t bytes, struct text *text)
{
    text->data = take(message, bytes);
    text->bytes = bytes;
    if (text->data == NULL)
        return -1;
    return bytes == 0 || text->data[bytes - 1] == '\0' ? 0 : fail("message", EBADMSG);
}

const char *string_at(const struct text *text, uint32_t offset)
{
    return offset < text->bytes ? text->data + offset : "";
}

const char **words_at(const struct text *text, uint32_t *offset, uint32_t count)
{
    if (count > text->bytes) { /* each has at least a NUL */
        fail("message", EBADMSG);
        return NULL;
    }
    const char **words = allocate(((size_t)count + 1) * sizeof *words);
    if (words == NULL)
        return NULL;
    for (uint32_t index = 0; index < count; ++index) {
        if (*offset >= text->bytes) {
            fail("message", EBADMSG);
            return NULL;
        }
        words[index] = text->data + *offset;
        *offset += (uint32_t)strlen(words[index]) + 1;
    }
    return words;
}

int send_message(int link, const void *structure, size_t bytes, const char *text, const int *descriptors, int count)
{
    union control control;
    struct iovec vectors[] = {{(void *)(uintptr_t)structure, bytes}, {(void *)(uintptr_t)text, strlen(text)}};
    struct msghdr header = {.msg_iov = vectors, .msg_iovlen = 2};
    if (count > DESCRIPTORS_A_MESSAGE)
        return fail("sendmsg", EINVAL);
    if (count > 0) {
        size_t length = (size_t)count * sizeof(int);
        header.msg_control = &control;
        header.msg_controllen = (socklen_t)CMSG_SPACE(length);
        memset(&control, 0, sizeof control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = (socklen_t)CMSG_LEN(length);
        memcpy(CMSG_DATA(&control.header), descriptors, length);
    }
    return check("sendmsg", sendmsg(link, &header, MSG_NOSIGNAL)) < 0 ? -1 : 0;
}

int send_failed(int link, uint32_t number, enum phase phase, uint32_t step)
{
    const char *call = failure.call != NULL ? failure.call : "";
    struct failed message = {KIND_FAILED, number, phase, step, (uint32_t)failure.number, (uint32_t)strlen(call)};
    return send_message(link, &message, sizeof message, call, NULL, 0);
}
