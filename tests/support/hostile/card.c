/* What a program in the kernel's place tries with the socket that is its network card: to reach the
 * host's socket of an abstract name. Arguments: the card's descriptor, the name. Each attempt is a
 * line: its name, and 0 if it succeeded, else the error's number. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static void tell(const char *name, long result) {
    fprintf(stderr, "%s %d\n", name, result < 0 ? errno : 0);
}

int main(int count, char **arguments) {
    int card = atoi(arguments[1]);
    struct sockaddr_un host = {AF_UNIX};
    struct sockaddr *address = (struct sockaddr *)&host;
    strcpy(host.sun_path + 1, arguments[2]);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(arguments[2]);

    tell("send", sendto(card, "x", 1, 0, address, length));
    struct iovec data = {"x", 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof card)];
    } control = {{CMSG_LEN(sizeof card), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &card, sizeof card);
    struct msghdr message = {address, length, &data, 1, &control, sizeof control};
    tell("pass", sendmsg(card, &message, 0));
    tell("connect", connect(card, address, length));
    host.sun_path[1] = '-'; /* a name that nobody has */
    tell("bind", bind(card, address, length));
    return 0;
}
