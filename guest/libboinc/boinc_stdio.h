/* <stdio.h>, and in C++ its functions in the namespace `boinc` (BOINC's lib/boinc_stdio.h). */
#ifndef BOINCVM_BOINC_STDIO_H
#define BOINCVM_BOINC_STDIO_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace boinc {
inline FILE *fopen(const char *path, const char *mode) { return ::fopen(path, mode); }
inline FILE *fdopen(int file, const char *mode) { return ::fdopen(file, mode); }
inline int fclose(FILE *file) { return ::fclose(file); }
inline int fileno(FILE *file) { return ::fileno(file); }
inline int feof(FILE *file) { return ::feof(file); }
inline int ferror(FILE *file) { return ::ferror(file); }
inline int fflush(FILE *file) { return ::fflush(file); }
inline int fgetc(FILE *file) { return ::fgetc(file); }
inline int ungetc(int letter, FILE *file) { return ::ungetc(letter, file); }
inline int fputc(int letter, FILE *file) { return ::fputc(letter, file); }
inline int fputs(const char *text, FILE *file) { return ::fputs(text, file); }
inline char *fgets(char *text, int size, FILE *file) { return ::fgets(text, size, file); }
inline long ftell(FILE *file) { return ::ftell(file); }
inline int fseek(FILE *file, long offset, int whence) { return ::fseek(file, offset, whence); }
inline size_t fread(void *data, size_t size, size_t count, FILE *file) {
    return ::fread(data, size, count, file);
}
inline size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    return ::fwrite(data, size, count, file);
}
inline void perror(const char *text) { ::perror(text); }
inline int vfprintf(FILE *file, const char *format, va_list arguments) {
    return ::vfprintf(file, format, arguments);
}
__attribute__((format(printf, 2, 3))) inline int fprintf(FILE *file, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = ::vfprintf(file, format, arguments);
    va_end(arguments);
    return length;
}
} // namespace boinc
#endif
#endif
