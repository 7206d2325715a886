#define FAKES_NOT_HERE
#include "fuzz_messages.h"

#include "fakes.h"
#include "kernel.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static char *exact;

static const uint8_t *cut(const uint8_t **data, size_t *bytes, size_t count)
{
    const uint8_t *here = *data;
    *data += count;
    *bytes -= count;
    return here;
}

/* Read a length, at most that of the rest. */
static size_t cut_length(const uint8_t **data, size_t *bytes)
{
    if (*bytes < 2)
        return *bytes = 0;
    const uint8_t *length = cut(data, bytes, 2);
    size_t wanted = (size_t)length[0] | (size_t)length[1] << 8;
    return wanted < *bytes ? wanted : *bytes;
}

void begin_input(const uint8_t **data, size_t *bytes, bool inside)
{
    size_t length = cut_length(data, bytes);
    fakes_begin(cut(data, bytes, length), length, inside);
}

static void require(bool done)
{
    if (!done)
        abort();
}

static void send_descriptors(int link, const void *packet, size_t bytes, const int *descriptors, size_t count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec vector = {(void *)(uintptr_t)packet, bytes};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
    if (count > 0) {
        memset(&control, 0, sizeof control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), descriptors, count * sizeof(int));
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    }
    require((sendmsg)(link, &header, 0) == (ssize_t)bytes);
}

static void send_packet(int link, const uint8_t *data, size_t bytes, unsigned how)
{
    int descriptors[4] = {0, 0, 0, 0};
    size_t count = how & 3;
    if (!(how & 4)) {
        send_descriptors(link, data, bytes, descriptors, count);
        return;
    }
    struct long_message where = {KIND_LONG, 0, how & 8 ? bytes + 1 : bytes};
    int memory = memfd_create("message", MFD_CLOEXEC);
    require(memory >= 0 && (bytes == 0 || (write)(memory, data, bytes) == (ssize_t)bytes));
    descriptors[count++] = memory;
    send_descriptors(link, &where, sizeof where, descriptors, count);
    (close)(memory);
}

bool next_message(const uint8_t **data, size_t *bytes, struct message *message)
{
    static int link[2] = {-1, -1};
    if (*bytes < 4)
        return false;
    if (link[0] < 0)
        require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) == 0);
    size_t length = cut_length(data, bytes);
    unsigned how = *bytes > 0 ? *cut(data, bytes, 1) : 0;
    length = length < *bytes ? length : *bytes;
    send_packet(link[0], cut(data, bytes, length), length, how);
    if (receive_message(link[1], message) < 0)
        message->bytes = 0;
    for (int index = 0; index < message->descriptor_count; ++index) {
        (close)(message->descriptors[index]);
        message->descriptors[index] = FAKE_DESCRIPTOR + index;
    }
    free(exact);
    exact = malloc(message->bytes + (message->bytes == 0));
    require(exact != NULL);
    if (message->bytes > 0)
        memcpy(exact, message->data, message->bytes);
    if (how & 4 && message->bytes > 0)
        munmap((void *)(uintptr_t)message->data, message->bytes);
    message->data = exact;
    return true;
}
