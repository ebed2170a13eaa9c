/* See md5.h and md5_file.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "md5_file.h"

#include <stdio.h>
#include <string.h>

#include "error_numbers.h"

static uint32_t rotate(uint32_t word, unsigned bits) { return word << bits | word >> (32 - bits); }

/* The constants of RFC 1321, 3.4: the whole part of 2^32 |sin(i + 1)|. */
static const uint32_t sines[64] = {
    0xD76AA478, 0xE8C7B756, 0x242070DB, 0xC1BDCEEE, 0xF57C0FAF, 0x4787C62A, 0xA8304613, 0xFD469501,
    0x698098D8, 0x8B44F7AF, 0xFFFF5BB1, 0x895CD7BE, 0x6B901122, 0xFD987193, 0xA679438E, 0x49B40821,
    0xF61E2562, 0xC040B340, 0x265E5A51, 0xE9B6C7AA, 0xD62F105D, 0x02441453, 0xD8A1E681, 0xE7D3FBC8,
    0x21E1CDE6, 0xC33707D6, 0xF4D50D87, 0x455A14ED, 0xA9E3E905, 0xFCEFA3F8, 0x676F02D9, 0x8D2A4C8A,
    0xFFFA3942, 0x8771F681, 0x6D9D6122, 0xFDE5380C, 0xA4BEEA44, 0x4BDECFA9, 0xF6BB4B60, 0xBEBFBC70,
    0x289B7EC6, 0xEAA127FA, 0xD4EF3085, 0x04881D05, 0xD9D4D039, 0xE6DB99E5, 0x1FA27CF8, 0xC4AC5665,
    0xF4292244, 0x432AFF97, 0xAB9423A7, 0xFC93A039, 0x655B59C3, 0x8F0CCC92, 0xFFEFF47D, 0x85845DD1,
    0x6FA87E4F, 0xFE2CE6E0, 0xA3014314, 0x4E0811A1, 0xF7537E82, 0xBD3AF235, 0x2AD7D2BB, 0xEB86D391,
};
static const unsigned char shifts[4][4] = {
    {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

static void mix(uint32_t state[4], const unsigned char *block) {
    uint32_t words[16], a = state[0], b = state[1], c = state[2], d = state[3];
    unsigned step;
    for (step = 0; step < 16; step++) {
        words[step] = (uint32_t)block[4 * step] | (uint32_t)block[4 * step + 1] << 8 |
                      (uint32_t)block[4 * step + 2] << 16 | (uint32_t)block[4 * step + 3] << 24;
    }
    for (step = 0; step < 64; step++) {
        uint32_t mixed, next = d;
        unsigned which;
        if (step < 16) {
            mixed = (b & c) | (~b & d);
            which = step;
        } else if (step < 32) {
            mixed = (d & b) | (~d & c);
            which = (5 * step + 1) % 16;
        } else if (step < 48) {
            mixed = b ^ c ^ d;
            which = (3 * step + 5) % 16;
        } else {
            mixed = c ^ (b | ~d);
            which = 7 * step % 16;
        }
        d = c;
        c = b;
        b += rotate(a + mixed + sines[step] + words[which], shifts[step / 16][step % 4]);
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

void md5_init(md5_state_t *state) {
    static const uint32_t start[4] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476};
    memset(state, 0, sizeof *state);
    memcpy(state->state, start, sizeof start);
}

void md5_append(md5_state_t *state, const md5_byte_t *data, int length) {
    size_t left = length > 0 ? (size_t)length : 0, used = (size_t)(state->length % 64);
    state->length += left;
    while (left > 0) {
        size_t taken = left < 64 - used ? left : 64 - used;
        memcpy(state->block + used, data, taken);
        used += taken;
        data += taken;
        left -= taken;
        if (used == 64) {
            mix(state->state, state->block);
            used = 0;
        }
    }
}

void md5_finish(md5_state_t *state, md5_byte_t digest[16]) {
    static const unsigned char end[64] = {0x80};
    unsigned char bits[8];
    uint64_t length = state->length * 8;
    unsigned index;
    for (index = 0; index < 8; index++) {
        bits[index] = (unsigned char)(length >> 8 * index);
    }
    md5_append(state, end, 1 + (int)((119 - state->length % 64) % 64));
    md5_append(state, bits, 8);
    for (index = 0; index < 16; index++) {
        digest[index] = (unsigned char)(state->state[index / 4] >> 8 * (index % 4));
    }
}

static void finish(md5_state_t *state, char *digits) {
    unsigned char digest[16];
    int index;
    md5_finish(state, digest);
    for (index = 0; index < 16; index++) {
        snprintf(digits + 2 * index, 3, "%02x", digest[index]);
    }
}

int boincvm_md5_file(const char *path, char *digest, double *bytes, bool is_gzip) {
    static const unsigned char mark[3] = {0x1F, 0x8B, 8};
    unsigned char buffer[65536];
    md5_state_t state;
    size_t length;
    int result;
    FILE *file = fopen(path, "rbe");
    *bytes = 0;
    if (file == NULL) {
        return ERR_FOPEN;
    }
    md5_init(&state);
    if (is_gzip) {
        length = fread(buffer, 1, 10, file);
        if (length != 10 || memcmp(buffer, mark, sizeof mark) != 0) {
            fclose(file);
            return ERR_BAD_FORMAT;
        }
        *bytes = 10;
    }
    while ((length = fread(buffer, 1, sizeof buffer, file)) > 0) {
        md5_append(&state, buffer, (int)length);
        *bytes += (double)length;
    }
    result = ferror(file) ? ERR_FREAD : 0;
    fclose(file);
    finish(&state, digest);
    return result;
}

int boincvm_md5_block(
    const unsigned char *first, int first_length, char *digest, const unsigned char *second,
    int second_length) {
    md5_state_t state;
    md5_init(&state);
    md5_append(&state, first, first_length);
    if (second != NULL) {
        md5_append(&state, second, second_length);
    }
    finish(&state, digest);
    return 0;
}

int make_secure_random_string_os(char *digits) {
    unsigned char bits[16];
    size_t length;
    int index;
    FILE *file = fopen("/dev/urandom", "rbe");
    if (file == NULL) {
        return ERR_FOPEN;
    }
    setvbuf(file, NULL, _IONBF, 0);
    length = fread(bits, 1, sizeof bits, file);
    fclose(file);
    if (length != sizeof bits) {
        return ERR_FREAD;
    }
    for (index = 0; index < 16; index++) {
        snprintf(digits + 2 * index, 3, "%02x", bits[index]);
    }
    return 0;
}
