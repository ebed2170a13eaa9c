/* The volunteer's proxy, as <proxy_info> of init_data.xml has it (BOINC's lib/proxy_info.h). A
 * machine of boincvm is told of none: the host's network goes through it already. */
#ifndef BOINCVM_PROXY_INFO_H
#define BOINCVM_PROXY_INFO_H

#include <stdbool.h>
#include <string.h>

typedef struct PROXY_INFO {
    bool present; /* always false here */
    bool use_http_proxy;
    bool use_http_auth;
    char http_server_name[256];
    int http_server_port;
    char http_user_name[256];
    char http_user_passwd[256];
    bool use_socks_proxy;
    char socks_server_name[256];
    int socks_server_port;
    char socks5_user_name[256];
    char socks5_user_passwd[256];
    bool socks5_remote_dns;
    char noproxy_hosts[256];
    bool no_autodetect;
#ifdef __cplusplus
    PROXY_INFO() { clear(); }
    void clear() { memset(static_cast<void *>(this), 0, sizeof *this); }
    bool using_proxy() const { return socks_server_name[0] || http_server_name[0]; }
#endif
} PROXY_INFO;

#endif
