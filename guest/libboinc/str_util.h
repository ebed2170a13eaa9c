/* The text functions of BOINC's lib/str_util.h that applications use. See boinc_api.h. */
#ifndef BOINCVM_STR_UTIL_H
#define BOINCVM_STR_UTIL_H

#include <string.h>

#include "str_replace.h"

#define safe_strcpy(to, from) strlcpy(to, from, sizeof(to))
#define safe_strcat(to, from) strlcat(to, from, sizeof(to))

#ifdef __cplusplus
#include <cctype>
#include <string>

inline bool starts_with(std::string const &text, std::string const &start) {
    return text.compare(0, start.size(), start) == 0;
}

inline bool ends_with(std::string const &text, std::string const &end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

inline void strip_whitespace(std::string &text) {
    const char *blank = " \t\n\v\f\r";
    text.erase(text.find_last_not_of(blank) + 1);
    text.erase(0, text.find_first_not_of(blank));
}

inline void downcase_string(std::string &text) {
    for (char &letter : text) {
        letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    }
}
#endif
#endif
