/* MD5 (RFC 1321), with the names that BOINC's lib/md5.h has. See md5_file.h. */
#ifndef BOINCVM_MD5_H
#define BOINCVM_MD5_H

#include <stdint.h>

typedef unsigned char md5_byte_t;
typedef uint32_t md5_word_t;

typedef struct md5_state_s {
    uint64_t length; /* bytes so far */
    uint32_t state[4];
    unsigned char block[64];
} md5_state_t;

#ifdef __cplusplus
extern "C" {
#endif

extern void md5_init(md5_state_t *state);
extern void md5_append(md5_state_t *state, const md5_byte_t *data, int length);
extern void md5_finish(md5_state_t *state, md5_byte_t digest[16]);

#ifdef __cplusplus
}
#endif
#endif
