/* BOINC's lenient XML (its lib/parse.h): a parser that goes tag by tag, and functions that look
 * for a tag in a line. C++ only. See boinc_api.h.
 *
 * As everywhere in BOINC there is no encoding: &#195; is one byte. Numbers are read by the rules
 * of C, whatever the application's locale. */
#ifndef BOINCVM_PARSE_H
#define BOINCVM_PARSE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cmath>
#include <cstdio>
#include <string>

#include "error_numbers.h"
#include "miofile.h"
#include "str_util.h"
#include "util.h"

#define XML_PARSE_COMMENT 1
#define XML_PARSE_EOF 2
#define XML_PARSE_CDATA 3
#define XML_PARSE_TAG 4
#define XML_PARSE_DATA 5
#define XML_PARSE_OVERFLOW 6

#define TAG_BUF_LEN 4096
#define ELEMENT_BUF_LEN 65536

/* ---- escapes ---- */

/* Room for `len` bytes with the end; what has none is left out, never half of an escape. */
inline void boincvm_copy_out(std::string const &text, char *out, int len) {
    size_t length = text.size();
    if (len <= 0) {
        return;
    }
    if (length >= static_cast<size_t>(len)) {
        length = static_cast<size_t>(len) - 1;
        size_t escape = text.rfind('&', length);
        if (escape != std::string::npos && text.find(';', escape) >= length) {
            length = escape;
        }
    }
    memcpy(out, text.data(), length);
    out[length] = '\0';
}

/* With &#N; for each byte beyond ASCII. */
inline void non_ascii_escape(const char *in, char *out, int len) {
    std::string text;
    for (; *in; in++) {
        unsigned char letter = static_cast<unsigned char>(*in);
        text += letter > 127 ? "&#" + std::to_string(letter) + ";" : std::string(1, *in);
    }
    boincvm_copy_out(text, out, len);
}

/* The same, and <, &, ]]>, tabs and line ends; other control characters are left out. */
inline void xml_escape(const char *in, char *out, int len) {
    std::string text;
    for (; *in; in++) {
        unsigned char letter = static_cast<unsigned char>(*in);
        if (letter == '<') {
            text += "&lt;";
        } else if (letter == '&') {
            text += "&amp;";
        } else if (letter == '>' && text.size() >= 2 && text.compare(text.size() - 2, 2, "]]") == 0) {
            text += "&gt;";
        } else if (letter > 127 || letter == '\t' || letter == '\n' || letter == '\r') {
            text += "&#" + std::to_string(letter) + ";";
        } else if (letter >= ' ') {
            text += *in;
        }
    }
    boincvm_copy_out(text, out, len);
}

/* The opposite; an & that begins no escape stands for itself. The text never becomes longer. */
inline void xml_unescape(std::string &text) {
    static const struct {
        const char *name;
        char letter;
    } names[] = {{"lt;", '<'}, {"gt;", '>'}, {"quot;", '"'}, {"apos;", '\''}, {"amp;", '&'}};
    std::string result;
    for (size_t place = 0; place < text.size(); place++) {
        size_t length = 0;
        char letter = text[place];
        for (size_t which = 0; letter == '&' && length == 0 && which < 5; which++) {
            if (text.compare(place + 1, strlen(names[which].name), names[which].name) == 0) {
                result += names[which].letter;
                length = strlen(names[which].name);
            }
        }
        if (letter == '&' && length == 0 && text[place + 1] == '#') {
            bool is_hex = (text[place + 2] | 0x20) == 'x';
            size_t start = place + (is_hex ? 3 : 2);
            size_t end = text.find_first_not_of(is_hex ? "0123456789abcdefABCDEF" : "0123456789", start);
            if (end != std::string::npos && text[end] == ';' && end > start && end - start <= 3) {
                long code = strtol(text.substr(start, end - start).c_str(), nullptr, is_hex ? 16 : 10);
                if (code > 0 && code < 256) {
                    result += static_cast<char>(code);
                    length = end - place;
                }
            }
        }
        if (length == 0) {
            result += letter;
        }
        place += length;
    }
    text = result;
}

inline void xml_unescape(char *text) {
    std::string result(text);
    xml_unescape(result);
    memcpy(text, result.c_str(), result.size() + 1);
}

/* ---- numbers ---- */

inline unsigned long long boinc_strtoull(const char *text, char **end, int base) {
    return strtoull(text, end, base);
}

/* Where no number stands, or one that is out of range or not finite, `value` stays. `whole`: nothing
 * may follow it. */
inline bool boincvm_number(const char *text, bool whole, double &value) {
    char *end;
    double number = boincvm_strtod(text, &end);
    if (end == text || !std::isfinite(number) || (whole && *end != '\0')) {
        return false;
    }
    value = number;
    return true;
}

template <typename Number, typename Reader>
inline bool boincvm_integer(const char *text, bool whole, Reader reader, Number &value) {
    char *end;
    errno = 0;
    Number number = static_cast<Number>(reader(text, &end, 0));
    if (errno != 0 || (whole && (end == text || *end != '\0'))) {
        return false;
    }
    value = number;
    return true;
}

/* ---- a tag in a line: `tag` is "<name>" ---- */

inline bool match_tag(const char *text, const char *tag) { return strstr(text, tag) != nullptr; }
inline bool match_tag(std::string const &text, const char *tag) {
    return match_tag(text.c_str(), tag);
}

inline bool parse_int(const char *text, const char *tag, int &value) {
    const char *place = strstr(text, tag);
    return place && boincvm_integer(place + strlen(tag), false, strtol, value);
}

inline bool parse_double(const char *text, const char *tag, double &value) {
    const char *place = strstr(text, tag);
    return place && boincvm_number(place + strlen(tag), false, value);
}

inline bool parse_str(const char *text, const char *tag, std::string &value) {
    const char *place = strstr(text, tag);
    const char *start = place ? strchr(place, '>') : nullptr;
    const char *end = start ? strchr(start, '<') : nullptr;
    if (!end) {
        return false;
    }
    value.assign(start + 1, static_cast<size_t>(end - start) - 1);
    strip_whitespace(value);
    xml_unescape(value);
    return true;
}

inline bool parse_str(const char *text, const char *tag, char *value, int size) {
    std::string found;
    if (size < 1 || !parse_str(text, tag, found)) {
        return false;
    }
    strlcpy(value, found.c_str(), static_cast<size_t>(size));
    return true;
}

/* `tag` without brackets: <tag/>, <tag />, or <tag>NUMBER. */
inline bool parse_bool(const char *text, const char *tag, bool &value) {
    std::string name = std::string("<") + tag;
    int number;
    if (match_tag(text, (name + "/>").c_str()) || match_tag(text, (name + " />").c_str())) {
        value = true;
        return true;
    }
    if (!parse_int(text, (name + ">").c_str(), number)) {
        return false;
    }
    value = number != 0;
    return true;
}

/* The value of name="value"; "" if there is none. */
inline void parse_attr(const char *text, const char *name, char *value, int size) {
    const char *place = strstr(text, name);
    const char *start = place ? strchr(place, '"') : nullptr;
    const char *end = start ? strchr(start + 1, '"') : nullptr;
    if (size > 0) {
        std::string found = end ? std::string(start + 1, end) : std::string();
        strlcpy(value, found.c_str(), static_cast<size_t>(size));
    }
}

/* ---- elements as text ---- */

inline int copy_stream(FILE *in, FILE *out) {
    char buffer[4096];
    size_t length;
    while ((length = fread(buffer, 1, sizeof buffer, in)) > 0) {
        if (fwrite(buffer, 1, length, out) != length) {
            return ERR_FWRITE;
        }
    }
    return ferror(in) ? ERR_FREAD : 0;
}

/* Appends to a string of malloc(). */
inline int strcatdup(char *&text, char *more) {
    char *longer = static_cast<char *>(realloc(text, strlen(text) + strlen(more) + 1));
    if (!longer) {
        return ERR_MALLOC;
    }
    text = strcat(longer, more);
    return 0;
}

inline int copy_element_contents(FILE *in, const char *end_tag, std::string &content) {
    MIOFILE file;
    file.init_file(in);
    return copy_element_contents(file, end_tag, content);
}

inline int copy_element_contents(FILE *in, const char *end_tag, char *content, size_t size) {
    MIOFILE file;
    file.init_file(in);
    return copy_element_contents(file, end_tag, content, static_cast<int>(size));
}

/* Into a string of malloc(). */
inline int dup_element_contents(FILE *in, const char *end_tag, char **content) {
    std::string whole;
    int result = copy_element_contents(in, end_tag, whole);
    if (result == 0 && !(*content = strdup(whole.c_str()))) {
        result = ERR_MALLOC;
    }
    return result;
}

/* The same, with the tags; `tag` without brackets. */
inline int dup_element(FILE *in, const char *tag, char **element) {
    std::string content, name(tag);
    int result = copy_element_contents(in, ("</" + name + ">").c_str(), content);
    if (result == 0 && !(*element = strdup(("<" + name + ">\n" + content + "</" + name + ">").c_str()))) {
        result = ERR_MALLOC;
    }
    return result;
}

/* What stands between `start` and `end`, in place; there must be room. */
inline void replace_element_contents(
    char *text, const char *start, const char *end, const char *replacement) {
    char *from = strstr(text, start);
    char *to = from ? strstr(from + strlen(start), end) : nullptr;
    if (to) {
        std::string rest(to);
        strcpy(from + strlen(start), replacement);
        strcat(from, rest.c_str());
    }
}

/* Removes all from `start` to `end`; whether it was there. */
inline bool remove_element(char *text, const char *start, const char *end) {
    char *from = strstr(text, start);
    char *to = from ? strstr(from + strlen(start), end) : nullptr;
    if (to) {
        strcpy_overlap(from, to + strlen(end));
    }
    return to != nullptr;
}

/* Replaces the first `old`; whether it was there. There must be room. */
inline bool str_replace(char *text, const char *old, const char *replacement) {
    char *place = strstr(text, old);
    if (place) {
        std::string rest(place + strlen(old));
        strcpy(place, replacement);
        strcat(place, rest.c_str());
    }
    return place != nullptr;
}

/* A line of text in memory, without its end; a null pointer when there is none. */
inline char *sgets(char *line, int size, char *&in) {
    char *end = strchr(in, '\n');
    if (!end || size < 1) {
        return nullptr;
    }
    strlcpy(line, std::string(in, end).c_str(), static_cast<size_t>(size));
    in = end + 1;
    return line;
}

/* ---- XML_PARSER ---- */

/* get_tag() reads the next tag or text; the parse_ functions then take the element that begins
 * there, if it has that name, and say whether they did. */
struct XML_PARSER {
    char parsed_tag[TAG_BUF_LEN]; /* "name", "/name", "name/", or text */
    bool is_tag;
    MIOFILE *f;

    explicit XML_PARSER(MIOFILE *file) : is_tag(false), f(file) { parsed_tag[0] = '\0'; }
    void init(MIOFILE *file) { f = file; }

    /* These return true at the end of the file. */
    bool get(char *text, int size, bool &tag, char *attributes = nullptr, int attributes_size = 0) {
        int kind = get_aux(text, size, attributes, attributes_size);
        if (kind == XML_PARSE_EOF || kind == XML_PARSE_OVERFLOW) {
            return true;
        }
        tag = kind == XML_PARSE_TAG;
        return false;
    }
    bool get_tag(char *attributes = nullptr, int attributes_size = 0) {
        return get(parsed_tag, TAG_BUF_LEN, is_tag, attributes, attributes_size);
    }
    bool match_tag(const char *tag) { return strcmp(parsed_tag, tag) == 0; }

    /* Whether the document's first element, after its <?xml…?>, is this. */
    bool parse_start(const char *start) {
        do {
            if (get_tag() || !is_tag) {
                return false;
            }
        } while (parsed_tag[0] == '?');
        return match_tag(start);
    }
    bool parse_string(const char *tag, std::string &value) {
        bool is_cdata = false, is_end = false;
        std::string text;
        if (is_empty(tag)) {
            value.clear();
            return true;
        }
        if (!match_tag(tag)) {
            return false;
        }
        int kind = next(text, nullptr);
        if (kind == XML_PARSE_DATA || kind == XML_PARSE_CDATA) {
            std::string end;
            is_cdata = kind == XML_PARSE_CDATA;
            is_end = next(end, nullptr) == XML_PARSE_TAG && end == std::string("/") + tag;
        } else if (kind == XML_PARSE_TAG && text == std::string("/") + tag) {
            is_end = true;
            text.clear();
        }
        if (!is_end) {
            return false;
        }
        if (!is_cdata) {
            xml_unescape(text);
        }
        value = text;
        return true;
    }
    bool parse_str(const char *tag, char *value, int size) {
        std::string text;
        if (!parse_string(tag, text) || size < 1 || text.size() >= static_cast<size_t>(size)) {
            return false;
        }
        memcpy(value, text.c_str(), text.size() + 1);
        return true;
    }
    bool parse_int(const char *tag, int &value) { return integer(tag, strtol, value); }
    bool parse_long(const char *tag, long &value) { return integer(tag, strtol, value); }
    bool parse_ulong(const char *tag, unsigned long &value) { return integer(tag, strtoul, value); }
    bool parse_ulonglong(const char *tag, unsigned long long &value) {
        return integer(tag, strtoull, value);
    }
    bool parse_double(const char *tag, double &value) {
        return number(tag, value, [&value](const char *text) {
            return boincvm_number(text, true, value);
        });
    }
    bool parse_bool(const char *tag, bool &value) { /* <tag/>, or a number */
        int number;
        if (is_empty(tag)) {
            value = true;
            return true;
        }
        if (!parse_int(tag, number)) {
            return false;
        }
        value = number != 0;
        return true;
    }
    /* What stands before the next `end`, which may have tags in it. */
    int element_contents(const char *end, char *text, int size) {
        int result = copy_element_contents(*f, end, text, size);
        if (result == 0) {
            strip_whitespace(text);
        }
        return result == 0 ? 0 : ERR_XML_PARSE;
    }
    /* The element whose first tag was read, with its tags. */
    int copy_element(std::string &element) {
        std::string name(parsed_tag), content;
        int result = copy_element_contents(*f, ("</" + name + ">").c_str(), content);
        element = "<" + name + ">" + content + "</" + name + ">";
        return result;
    }
    /* Passes over the element that begins with `start`, whatever is in it. */
    void skip_unexpected(const char *start, bool verbose, const char *where) {
        std::string name(start), text, end = "/" + name;
        if (verbose) {
            fprintf(stderr, "%s: unexpected <%s>\n", where, start);
        }
        if (name.empty() || name[0] == '/' || name[name.size() - 1] == '/') {
            return;
        }
        int depth = 1;
        while (depth > 0) {
            int kind = next(text, nullptr);
            if (kind == XML_PARSE_EOF) {
                return;
            }
            depth += kind == XML_PARSE_TAG ? (text == name) - (text == end) : 0;
        }
    }
    void skip_unexpected(bool verbose = false, const char *where = "") {
        std::string start(parsed_tag);
        skip_unexpected(start.c_str(), verbose, where);
    }
    int get_aux(char *text, int size, char *attributes, int attributes_size) {
        std::string whole, found;
        int kind = next(whole, &found);
        if (kind == XML_PARSE_EOF) {
            return kind;
        }
        if (size < 1 || whole.size() >= static_cast<size_t>(size)) {
            return XML_PARSE_OVERFLOW;
        }
        memcpy(text, whole.c_str(), whole.size() + 1);
        if (attributes && attributes_size > 0) {
            strlcpy(attributes, found.c_str(), static_cast<size_t>(attributes_size));
        }
        return kind;
    }

  private:
    bool is_empty(const char *tag) { return match_tag((std::string(tag) + "/").c_str()); }

    template <typename Number, typename Reader>
    bool integer(const char *tag, Reader reader, Number &value) {
        return number(tag, value, [&value, reader](const char *text) {
            return boincvm_integer(text, true, reader, value);
        });
    }
    template <typename Number, typename Convert>
    bool number(const char *tag, Number &value, Convert convert) {
        std::string text;
        if (is_empty(tag) || !match_tag(tag) || !parse_string(tag, text)) {
            return false;
        }
        if (text.empty()) {
            value = 0;
            return true;
        }
        return convert(text.c_str());
    }
    static bool is_blank(int letter) { return letter > 0 && strchr(" \t\n\v\f\r", letter); }

    /* Reads up to `end`, which is not kept; false at the end of the file. */
    bool up_to(const char *end, std::string &text) {
        return copy_element_contents(*f, end, text) == 0;
    }
    /* The next tag, text or CDATA section, without blanks around it; comments do not count. */
    int next(std::string &text, std::string *attributes) {
        for (;;) {
            int letter;
            do {
                letter = f->_getc();
            } while (is_blank(letter));
            if (letter == EOF || letter == 0) {
                return XML_PARSE_EOF;
            }
            text.clear();
            if (letter != '<') {
                while (letter != '<') {
                    if (letter == EOF || letter == 0) {
                        return XML_PARSE_EOF;
                    }
                    text += static_cast<char>(letter);
                    letter = f->_getc();
                }
                f->_ungetc(letter);
                strip_whitespace(text);
                return XML_PARSE_DATA;
            }
            while ((letter = f->_getc()) != '>') {
                if (letter == EOF || letter == 0) {
                    return XML_PARSE_EOF;
                }
                text += static_cast<char>(letter);
                if (text == "![CDATA[") {
                    return up_to("]]>", text) ? XML_PARSE_CDATA : XML_PARSE_EOF;
                }
                if (text == "!--") {
                    break;
                }
            }
            if (text == "!--") {
                if (!up_to("-->", text)) {
                    return XML_PARSE_EOF;
                }
                continue;
            }
            split(text, attributes);
            return XML_PARSE_TAG;
        }
    }
    /* "name a=b /" becomes "name/" and "a=b". */
    static void split(std::string &tag, std::string *attributes) {
        size_t blank = tag.find_first_of(" \t\n\v\f\r");
        if (blank == std::string::npos) {
            return;
        }
        std::string rest = tag.substr(blank);
        bool is_closed = rest[rest.size() - 1] == '/';
        tag.resize(blank);
        if (is_closed) {
            rest.resize(rest.size() - 1);
            tag += '/';
        }
        strip_whitespace(rest);
        if (attributes) {
            *attributes = rest;
        }
    }
};

/* For a line "<tag>" that opens an element: passes over its lines. 0, or ERR_XML_PARSE. */
inline int skip_unrecognized(char *line, MIOFILE &in) {
    std::string name, end;
    const char *start = strchr(line, '<'), *close = start ? strchr(start, '>') : nullptr;
    char next[4096];
    if (!close) {
        return ERR_XML_PARSE;
    }
    if (strchr(start + 1, '<') || close[-1] == '/') {
        return 0;
    }
    end = "</" + std::string(start + 1, close) + ">";
    while (in.fgets(next, sizeof next)) {
        if (strstr(next, end.c_str())) {
            return 0;
        }
    }
    return ERR_XML_PARSE;
}

#endif
