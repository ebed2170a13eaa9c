/* MFILE of BOINC's lib/mfile.h: output that is kept in memory until flush() or close(), so that
 * it and a checkpoint reach the disk together. C++ only. See boinc_api.h. */
#ifndef BOINCVM_MFILE_H
#define BOINCVM_MFILE_H

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "error_numbers.h"
#include "filesys.h"

class MFILE {
    std::string buffer;
    FILE *file;

  public:
    MFILE() : file(nullptr) {}
    MFILE(MFILE const &) = delete;
    MFILE &operator=(MFILE const &) = delete;
    ~MFILE() {
        if (file) {
            close();
        }
    }
    int open(const char *path, const char *mode) {
        file = boinc_fopen(path, mode);
        return file ? 0 : ERR_FOPEN;
    }
    int _putchar(char letter) {
        buffer += letter;
        return static_cast<unsigned char>(letter);
    }
    int puts(const char *text) {
        buffer += text;
        return 0;
    }
    size_t write(const void *data, size_t size, size_t count) {
        buffer.append(static_cast<const char *>(data), size * count);
        return count;
    }
    int vprintf(const char *format, va_list arguments) {
        va_list again;
        va_copy(again, arguments);
        int length = std::vsnprintf(nullptr, 0, format, arguments);
        if (length >= 0) {
            size_t end = buffer.size();
            buffer.resize(end + static_cast<size_t>(length) + 1);
            std::vsnprintf(&buffer[end], static_cast<size_t>(length) + 1, format, again);
            buffer.pop_back();
        }
        va_end(again);
        return length;
    }
    int printf(const char *format, ...) {
        va_list arguments;
        va_start(arguments, format);
        int length = vprintf(format, arguments);
        va_end(arguments);
        return length;
    }
    /* What is kept, in a place of malloc(), without an end; then nothing is. */
    void get_buf(char *&data, int &length) {
        data = static_cast<char *>(std::malloc(buffer.size() + 1));
        length = data ? static_cast<int>(buffer.size()) : 0;
        if (data) {
            std::memcpy(data, buffer.c_str(), buffer.size() + 1);
            buffer.clear();
        }
    }
    int flush() {
        size_t written = std::fwrite(buffer.data(), 1, buffer.size(), file);
        bool is_whole = written == buffer.size();
        buffer.erase(0, written);
        return is_whole && std::fflush(file) == 0 ? 0 : ERR_FWRITE;
    }
    int close() {
        int result = flush();
        bool is_closed = std::fclose(file) == 0;
        file = nullptr;
        return result == 0 && !is_closed ? ERR_FWRITE : result;
    }
    long tell() const { return file ? std::ftell(file) + static_cast<long>(buffer.size()) : -1; }
};

#endif
