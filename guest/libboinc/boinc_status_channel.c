/* See boinc_status_channel.h. A line of at most PIPE_BUF bytes goes out whole or not at all, whichever
 * threads and processes write at once (POSIX, write()). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "boinc_status_channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_LINE 4095 /* with its end */

static pthread_once_t opened = PTHREAD_ONCE_INIT;
static int descriptor = -1;

static void open_status_channel(void) {
    const char *path = getenv("BOINCVM_STATUS_CHANNEL");
    struct stat status;
    int saved = errno;
    if (path != NULL && *path != '\0') {
        /* Non-blocking: a FIFO that nobody reads must not hold up the application. */
        descriptor = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    }
    if (descriptor >= 0 && (fstat(descriptor, &status) != 0 || !S_ISFIFO(status.st_mode))) {
        close(descriptor);
        descriptor = -1;
    }
    errno = saved;
}

int boincvm_status_channel_exists(void) {
    pthread_once(&opened, open_status_channel);
    return descriptor >= 0;
}

/* write(), without the SIGPIPE that would end a program whose listener has gone. */
static ssize_t write_quietly(const char *line, size_t length) {
    sigset_t pipe_signal, before, pending;
    struct timespec at_once = {0, 0};
    ssize_t written;
    int reason, was_pending;

    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigemptyset(&pending);
    sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    written = write(descriptor, line, length);
    reason = errno;
    if (written < 0 && reason == EPIPE && !was_pending) {
        while (sigtimedwait(&pipe_signal, NULL, &at_once) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = reason;
    return written;
}

static void write_line(const char *line, size_t length, enum boincvm_patience patience) {
    while (write_quietly(line, length) < 0) {
        if (errno == EAGAIN && patience == BOINCVM_WAIT) {
            struct pollfd full = {0, POLLOUT, 0};
            full.fd = descriptor;
            poll(&full, 1, -1);
        } else if (errno != EINTR) {
            return; /* full, and the message may be dropped; or the listener has gone */
        }
    }
}

/* How many bytes the UTF-8 character at `text` has; 0 if there is none (RFC 3629). */
static size_t character(const unsigned char *text) {
    size_t length = text[0] < 0x80 ? 1 : text[0] < 0xC2 ? 0 : text[0] < 0xE0 ? 2 : text[0] < 0xF0 ? 3
                    : text[0] < 0xF5 ? 4 : 0;
    size_t index;
    for (index = 1; index < length; index++) {
        if ((text[index] & 0xC0) != 0x80) {
            return 0;
        }
    }
    if ((text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xED && text[1] > 0x9F) ||
        (text[0] == 0xF0 && text[1] < 0x90) || (text[0] == 0xF4 && text[1] > 0x8F)) {
        return 0;
    }
    return length;
}

/* The host drops a line that is not valid UTF-8, and with it the whole message. */
static void clean(unsigned char *line) {
    while (*line != '\0') {
        size_t length = character(line);
        if (length == 0) {
            *line++ = '?';
        } else {
            if (*line < 0x20 || *line == 0x7F) {
                *line = ' ';
            }
            line += length;
        }
    }
}

void boincvm_send_message(enum boincvm_patience patience, const char *format, ...) {
    char line[LONGEST_LINE + 1];
    va_list arguments;
    int made, saved = errno;
    size_t length;

    if (!boincvm_status_channel_exists()) {
        return;
    }
    va_start(arguments, format);
    made = vsnprintf(line, LONGEST_LINE, format, arguments);
    va_end(arguments);
    if (made < 0) {
        return;
    }
    clean((unsigned char *)line);
    length = strlen(line);
    line[length] = '\n';
    write_line(line, length + 1, patience);
    errno = saved;
}
