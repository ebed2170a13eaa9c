/* The text functions of BOINC's lib/str_util.h that applications use. See boinc_api.h. */
#ifndef BOINCVM_STR_UTIL_H
#define BOINCVM_STR_UTIL_H

#include <ctype.h>
#include <string.h>

#include "str_replace.h"

#define safe_strcpy(to, from) strlcpy(to, from, sizeof(to))
#define safe_strcat(to, from) strlcat(to, from, sizeof(to))

#ifdef __cplusplus
extern "C" {
#endif

/* strtod() by the rules of C, whatever the application's locale. Not BOINC's. */
extern double boincvm_strtod(const char *text, char **end);

/* strcpy() to a place that may overlap. */
extern void strcpy_overlap(char *to, const char *from);

/* Splits a command line in place at blanks; a word that begins with a quote reaches to the next
 * such quote. Returns the number of words; a null pointer follows the last. */
extern int parse_command_line(char *line, char **words);

/* Each occurrence of `old` replaced; ERR_BUFFER_OVERFLOW: `out` has what had room. */
extern int string_substitute(
    const char *text, char *out, int size, const char *old, const char *replacement);

/* "1h02m03s45" (room for 32 bytes); "1.50 MB", or "1.50/2.00 MB" of a total that is not 0. */
extern void secs_to_hmsf(double seconds, char *text);
extern void nbytes_to_string(double bytes, double total, char *text, int size);

#ifdef __cplusplus
} /* extern "C" */

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

inline bool empty(char *text) { return *text == '\0'; }

inline bool starts_with(std::string const &text, std::string const &start) {
    return text.compare(0, start.size(), start) == 0;
}
inline bool starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

inline bool ends_with(std::string const &text, std::string const &end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}
inline bool ends_with(const char *text, const char *end) {
    return ends_with(std::string(text), std::string(end));
}

inline void downcase_string(std::string &text) {
    for (char &letter : text) {
        letter = static_cast<char>(tolower(static_cast<unsigned char>(letter)));
    }
}
inline void downcase_string(char *text) {
    for (; *text; text++) {
        *text = static_cast<char>(tolower(static_cast<unsigned char>(*text)));
    }
}

/* Without the bytes of `unwanted` at both ends. Not BOINC's. */
inline void boincvm_strip(std::string &text, const char *unwanted) {
    text.erase(text.find_last_not_of(unwanted) + 1);
    text.erase(0, text.find_first_not_of(unwanted));
}

inline void strip_whitespace(std::string &text) { boincvm_strip(text, " \t\n\v\f\r"); }
inline void strip_whitespace(char *text) {
    std::string result(text);
    strip_whitespace(result);
    memcpy(text, result.c_str(), result.size() + 1);
}

/* Blanks and quotes. */
inline void strip_quotes(std::string &text) { boincvm_strip(text, " \t\n\v\f\r\"'"); }
inline void strip_quotes(char *text) {
    std::string result(text);
    strip_quotes(result);
    memcpy(text, result.c_str(), result.size() + 1);
}

/* Each run of blanks becomes its first one. */
inline void collapse_whitespace(std::string &text) {
    text.erase(
        std::unique(
            text.begin(), text.end(),
            [](char first, char second) {
                return isspace(static_cast<unsigned char>(first)) &&
                       isspace(static_cast<unsigned char>(second));
            }),
        text.end());
}
inline void collapse_whitespace(char *text) {
    std::string result(text);
    collapse_whitespace(result);
    memcpy(text, result.c_str(), result.size() + 1);
}

/* Pieces with their delimiter. */
inline std::vector<std::string> split(std::string text, char delimiter) {
    std::vector<std::string> pieces;
    size_t start = 0;
    while (start < text.size()) {
        size_t end = text.find(delimiter, start);
        pieces.push_back(text.substr(start, end == std::string::npos ? end : end - start) + delimiter);
        start = end == std::string::npos ? text.size() : end + 1;
    }
    return pieces;
}

/* A time in seconds since 1970, local or UTC, in a place of the calling thread's: "29-Nov-2026
 * 16:30:00", "---" for 0; "2026-11-29 16:30:00.1234". */
inline char *boincvm_time(double seconds, bool utc, const char *format, bool is_fine) {
    static thread_local char text[100];
    time_t whole = static_cast<time_t>(seconds);
    struct tm parts;
    char fine[24] = "";
    if (!(utc ? gmtime_r(&whole, &parts) : localtime_r(&whole, &parts))) {
        whole = 0;
        gmtime_r(&whole, &parts);
    }
    size_t length = strftime(text, sizeof text - sizeof fine, format, &parts);
    if (is_fine) {
        snprintf(fine, sizeof fine, ".%04d", static_cast<int>(10000 * (seconds - static_cast<double>(whole))) % 10000);
    }
    snprintf(text + length, sizeof text - length, "%s%s", fine, utc ? " UTC" : "");
    return text;
}
inline char *time_to_string(double seconds, bool utc = false) {
    static thread_local char never[] = "---";
    return seconds != 0 ? boincvm_time(seconds, utc, "%d-%b-%Y %H:%M:%S", false) : never;
}
inline char *precision_time_to_string(double seconds, bool utc = false) {
    return boincvm_time(seconds, utc, "%Y-%m-%d %H:%M:%S", true);
}

/* "01:02:03", "2 days 01:02:03" */
inline std::string timediff_format(double seconds) {
    long whole = static_cast<long>(seconds), days = whole / 86400;
    char text[64];
    snprintf(
        text, sizeof text, "%02ld:%02ld:%02ld", whole / 3600 % 24, whole / 60 % 60, whole % 60);
    return (days ? std::to_string(days) + " days " : "") + text;
}

/* "12.23 GFLOPS" */
inline std::string flops_to_string(double speed) {
    char text[64];
    double unit = speed >= 1e12 ? 1e12 : speed >= 1e9 ? 1e9 : 1e6;
    snprintf(
        text, sizeof text, "%0.2f %cFLOPS", speed / unit,
        unit > 1e9 ? 'T' : unit > 1e6 ? 'G' : 'M');
    return text;
}

/* "20261129163000", local time; room for 16 bytes. */
inline void mysql_timestamp(double seconds, char *text) {
    strcpy(text, boincvm_time(seconds, false, "%Y%m%d%H%M%S", false));
}

/* The same text, in a place of malloc(), with a line's end. */
inline char *lf_terminate(char *text) {
    size_t length = strlen(text);
    if (length == 0 || text[length - 1] != '\n') {
        text = static_cast<char *>(realloc(text, length + 2));
        strcpy(text + length, "\n");
    }
    return text;
}

/* Neither control characters nor "..", and not absolute. */
inline bool is_valid_filename(const char *name) {
    for (const char *place = name; *place; place++) {
        if (iscntrl(static_cast<unsigned char>(*place))) {
            return false;
        }
    }
    return *name != '/' && !strstr(name, "..");
}

/* What follows the last slash; -1: the path is empty, -2: nothing follows it. */
inline int path_to_filename(std::string path, std::string &name) {
    size_t slash = path.rfind('/');
    if (path.empty()) {
        return -1;
    }
    if (slash == path.size() - 1) {
        return -2;
    }
    name = path.substr(slash == std::string::npos ? 0 : slash + 1);
    return 0;
}
/* In a place of new[]. */
inline int path_to_filename(std::string path, char *&name) {
    std::string found;
    int result = path_to_filename(path, found);
    if (result == 0) {
        name = new char[found.size() + 1];
        memcpy(name, found.c_str(), found.size() + 1);
    }
    return result;
}
#endif
#endif
