/* MD5 of files and texts, as 32 hexadecimal digits (BOINC's lib/md5_file.h). See boinc_api.h. */
#ifndef BOINCVM_MD5_FILE_H
#define BOINCVM_MD5_FILE_H

#include <stdbool.h>

#include "md5.h"

#define MD5_LEN 64 /* more than enough for a digest */

#ifdef __cplusplus
extern "C" {
#endif

/* ERR_FOPEN, ERR_FREAD; ERR_BAD_FORMAT: `is_gzip`, which leaves gzip's head of ten bytes out, and it
 * has none. `bytes` is the file's size, the head's too. */
extern int boincvm_md5_file(const char *path, char *digest, double *bytes, bool is_gzip);
extern int boincvm_md5_block(
    const unsigned char *first, int first_length, char *digest, const unsigned char *second,
    int second_length);
extern int make_secure_random_string_os(char *digits); /* of 128 random bits; 33 bytes */

#ifdef __cplusplus
} /* extern "C" */

#include <string>

inline int md5_file(const char *path, char *digest, double &bytes, bool is_gzip = false) {
    return boincvm_md5_file(path, digest, &bytes, is_gzip);
}

/* Of two blocks, one after the other. */
inline int md5_block(
    const unsigned char *data, int length, char *digest, const unsigned char *more = nullptr,
    int more_length = 0) {
    return boincvm_md5_block(data, length, digest, more, more_length);
}

inline std::string md5_string(const unsigned char *data, int length) {
    char digest[MD5_LEN];
    md5_block(data, length, digest);
    return digest;
}

inline std::string md5_string(std::string const &data) {
    return md5_string(
        reinterpret_cast<const unsigned char *>(data.data()), static_cast<int>(data.size()));
}
#endif
#endif
