/* URLs, with the names of BOINC's lib/url.h. C++ only. See boinc_api.h. */
#ifndef BOINCVM_URL_H
#define BOINCVM_URL_H

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <string>

#include "str_util.h"

#define URL_PROTOCOL_UNKNOWN 0
#define URL_PROTOCOL_HTTP 1
#define URL_PROTOCOL_HTTPS 2
#define URL_PROTOCOL_SOCKS 3

/* [PROTOCOL://][USER[:PASSWORD]@]HOST[:PORT][/FILE]; a part that is too long is cut. */
struct PARSED_URL {
    int protocol;
    char user[256];
    char passwd[256];
    char host[256];
    int port; /* 443 for https, else 80, where the URL has none */
    char file[256];
};

inline bool is_https(const char *url) { return starts_with(url, "https://"); }

inline void parse_url(const char *url, PARSED_URL &parsed) {
    static const char *const names[] = {"", "http://", "https://", "socks://"};
    std::string rest(url), user, port;
    parsed = PARSED_URL();
    for (int protocol = URL_PROTOCOL_HTTP; protocol <= URL_PROTOCOL_SOCKS; protocol++) {
        if (starts_with(url, names[protocol])) {
            parsed.protocol = protocol;
            rest.erase(0, strlen(names[protocol]));
        }
    }
    /* Cuts `whole` at the first of `letters`, and returns what follows. */
    auto cut = [](std::string &whole, char letter) {
        size_t place = whole.find(letter);
        std::string after = place == std::string::npos ? "" : whole.substr(place + 1);
        whole.resize(place == std::string::npos ? whole.size() : place);
        return after;
    };
    if (rest.find('@') != std::string::npos) {
        user = rest;
        rest = cut(user, '@');
        safe_strcpy(parsed.passwd, cut(user, ':').c_str());
        safe_strcpy(parsed.user, user.c_str());
    }
    safe_strcpy(parsed.file, cut(rest, '/').c_str());
    port = cut(rest, ':');
    parsed.port = !port.empty()                          ? atoi(port.c_str())
                  : parsed.protocol == URL_PROTOCOL_HTTPS ? 443
                                                          : 80;
    safe_strcpy(parsed.host, rest.c_str());
}

/* %XX for all but letters and digits, and back; what has no room is left out. */
inline void escape_url(const char *in, char *out, int size) {
    size_t room = size > 0 ? static_cast<size_t>(size) : 0, used = 0;
    for (; *in && used + 1 < room; in++) {
        unsigned char letter = static_cast<unsigned char>(*in);
        int length = snprintf(out + used, room - used, isalnum(letter) ? "%c" : "%%%02X", letter);
        if (used + static_cast<size_t>(length) >= room) {
            break;
        }
        used += static_cast<size_t>(length);
    }
    if (room > 0) {
        out[used] = '\0';
    }
}
inline void escape_url(std::string &url) {
    std::vector<char> room(3 * url.size() + 1);
    escape_url(url.c_str(), room.data(), static_cast<int>(room.size()));
    url = room.data();
}

inline void unescape_url(std::string &url) {
    std::string result;
    for (size_t place = 0; place < url.size(); place++) {
        if (url[place] == '%' && place + 2 < url.size() &&
            isxdigit(static_cast<unsigned char>(url[place + 1])) &&
            isxdigit(static_cast<unsigned char>(url[place + 2]))) {
            result += static_cast<char>(strtol(url.substr(place + 1, 2).c_str(), nullptr, 16));
            place += 2;
        } else {
            result += url[place];
        }
    }
    url = result;
}
inline void unescape_url(char *url, int size) {
    std::string result(url);
    unescape_url(result);
    if (size > 0) {
        strlcpy(url, result.c_str(), static_cast<size_t>(size));
    }
}

/* Without the protocol, and _ for all but letters, digits, '.', '-' and '_': a project's
 * directory, for escape_project_url without a _ at the end. `out` needs as much room as `in`. */
inline void escape_url_readable(char *in, char *out) {
    const char *start = strstr(in, "://");
    for (start = start ? start + 3 : in; *start; start++) {
        bool is_kept = isalnum(static_cast<unsigned char>(*start)) || strchr(".-_", *start);
        *out++ = is_kept ? *start : '_';
    }
    *out = '\0';
}
inline void escape_project_url(char *in, char *out) {
    escape_url_readable(in, out);
    size_t length = strlen(out);
    if (length > 0 && out[length - 1] == '_') {
        out[length - 1] = '\0';
    }
}

/* With a protocol, the host in lower case, no double slashes, a slash at the end. */
inline void canonicalize_master_url(std::string &url) {
    size_t place = url.find("://");
    std::string protocol = place == 5 ? "https://" : "http://";
    std::string rest = place == std::string::npos ? url : url.substr(place + 3);
    while ((place = rest.find("//")) != std::string::npos) {
        rest.erase(place, 1);
    }
    if (rest.empty() || rest[rest.size() - 1] != '/') {
        rest += '/';
    }
    for (place = 0; rest[place] != '/'; place++) {
        rest[place] = static_cast<char>(tolower(static_cast<unsigned char>(rest[place])));
    }
    url = protocol + rest;
}
inline void canonicalize_master_url(char *url, int size) {
    std::string result(url);
    canonicalize_master_url(result);
    if (size > 0) {
        strlcpy(url, result.c_str(), static_cast<size_t>(size));
    }
}

/* http or https, a host with a dot in it, a slash at the end. */
inline bool valid_master_url(char *url) {
    if (!starts_with(url, "http://") && !starts_with(url, "https://")) {
        return false;
    }
    const char *host = strstr(url, "://") + 3, *dot = strchr(host, '.');
    const char *slash = dot ? strchr(dot + 1, '/') : nullptr;
    return dot && dot != host && slash && slash != dot + 1 && url[strlen(url) - 1] == '/';
}

inline bool urls_match(const char *first, const char *second) { /* but for the protocol */
    first = strstr(first, "//");
    second = strstr(second, "//");
    return first && second && strcmp(first, second) == 0;
}
inline bool is_https_transition(const char *first, const char *second) {
    return starts_with(first, "http://") && is_https(second) && urls_match(first, second);
}
#endif
