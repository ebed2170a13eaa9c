/* MIOFILE of BOINC's lib/miofile.h: a FILE, an MFILE or text in memory behind one face, which
 * XML_PARSER reads. C++ only. See boinc_api.h. */
#ifndef BOINCVM_MIOFILE_H
#define BOINCVM_MIOFILE_H

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>

#include "boinc_stdio.h"
#include "error_numbers.h"
#include "mfile.h"

struct MIOFILE {
    FILE *f;

    MIOFILE() : f(nullptr), mfile(nullptr), target(nullptr), room(0), text("") {}
    MIOFILE(MIOFILE const &) = delete;
    MIOFILE &operator=(MIOFILE const &) = delete;
    void init_mfile(MFILE *whole) { mfile = whole; }
    void init_file(FILE *file) { f = file; }
    void init_buf_read(const char *source) { text = source; }
    void init_buf_write(char *place, int size) { /* what has no room there is dropped */
        target = place;
        room = size;
        if (size > 0) {
            place[0] = '\0';
        }
    }
    __attribute__((format(printf, 2, 3))) int printf(const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        int length = 0;
        if (f) {
            length = std::vfprintf(f, format, arguments);
        } else if (mfile) {
            length = mfile->vprintf(format, arguments);
        } else if (target && room > 0) {
            size_t used = std::strlen(target);
            length =
                std::vsnprintf(target + used, static_cast<size_t>(room) - used, format, arguments);
        }
        va_end(arguments);
        return length;
    }
    char *fgets(char *line, int size) {
        if (f) {
            return std::fgets(line, size, f);
        }
        const char *end = std::strchr(text, '\n');
        if (!end || size < 1) {
            return nullptr;
        }
        size_t whole = static_cast<size_t>(end - text) + 1;
        size_t length = whole < static_cast<size_t>(size) ? whole : static_cast<size_t>(size) - 1;
        std::memcpy(line, text, length);
        line[length] = '\0';
        text = end + 1;
        return line;
    }
    int _getc() {
        if (f) {
            return std::fgetc(f);
        }
        return *text ? static_cast<unsigned char>(*text++) : EOF;
    }
    int _ungetc(int letter) { /* what _getc() gave last */
        if (f) {
            return std::ungetc(letter, f);
        }
        text--;
        return letter;
    }
    bool eof() { return f ? std::feof(f) != 0 : *text == '\0'; }

  private:
    MFILE *mfile;
    char *target;
    int room;
    const char *text;
};

/* What comes before the next `end_tag`, which is taken too. ERR_XML_PARSE: there is none. */
inline int copy_element_contents(MIOFILE &in, const char *end_tag, std::string &content) {
    std::string end(end_tag);
    content.clear();
    for (int letter = in._getc(); letter != EOF; letter = in._getc()) {
        content += static_cast<char>(letter);
        if (content.size() >= end.size() &&
            content.compare(content.size() - end.size(), end.size(), end) == 0) {
            content.resize(content.size() - end.size());
            return 0;
        }
    }
    return ERR_XML_PARSE;
}

inline int copy_element_contents(MIOFILE &in, const char *end_tag, char *content, int size) {
    std::string whole;
    int result = copy_element_contents(in, end_tag, whole);
    if (result != 0) {
        return result;
    }
    if (size < 0 || whole.size() >= static_cast<size_t>(size)) {
        return ERR_BUFFER_OVERFLOW;
    }
    std::memcpy(content, whole.c_str(), whole.size() + 1);
    return 0;
}
#endif
