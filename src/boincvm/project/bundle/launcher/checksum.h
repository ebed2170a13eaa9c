/* XXH64 of a file, with seed 0: fast enough to read a whole folder at each start.
   It finds accidents. Against people there is the signature that a BOINC client checks. */

#include <stdint.h>
#include <string.h>

#define PRIME1 0x9E3779B185EBCA87ull
#define PRIME2 0xC2B2AE3D27D4EB4Full
#define PRIME3 0x165667B19E3779F9ull
#define PRIME4 0x85EBCA77C2B2AE63ull
#define PRIME5 0x27D4EB2F165667C5ull

typedef struct {
    uint64_t lanes[4];
    uint64_t length;
} checksum;

static uint64_t rotated(uint64_t value, int bits) {
    return value << bits | value >> (64 - bits);
}

static uint64_t word(const unsigned char *bytes) {
    uint64_t value;
    memcpy(&value, bytes, 8);
    return value;
}

static uint64_t mixed(uint64_t lane, uint64_t input) {
    return rotated(lane + input * PRIME2, 31) * PRIME1;
}

static void begin_checksum(checksum *sum) {
    sum->lanes[0] = PRIME1 + PRIME2;
    sum->lanes[1] = PRIME2;
    sum->lanes[2] = 0;
    sum->lanes[3] = 0 - PRIME1;
    sum->length = 0;
}

/* Take the whole blocks of 32 bytes. */
static void add_blocks(checksum *sum, const unsigned char *bytes, size_t blocks) {
    uint64_t a = sum->lanes[0], b = sum->lanes[1], c = sum->lanes[2], d = sum->lanes[3];
    for (size_t block = 0; block < blocks; block++, bytes += 32) {
        a = mixed(a, word(bytes));
        b = mixed(b, word(bytes + 8));
        c = mixed(c, word(bytes + 16));
        d = mixed(d, word(bytes + 24));
    }
    sum->lanes[0] = a, sum->lanes[1] = b, sum->lanes[2] = c, sum->lanes[3] = d;
    sum->length += blocks * 32;
}

/* Take the last `size` bytes, fewer than 32, and return the checksum. */
static uint64_t end_checksum(checksum *sum, const unsigned char *bytes, size_t size) {
    uint64_t result = PRIME5;
    if (sum->length >= 32) {
        result = rotated(sum->lanes[0], 1) + rotated(sum->lanes[1], 7)
            + rotated(sum->lanes[2], 12) + rotated(sum->lanes[3], 18);
        for (int lane = 0; lane < 4; lane++)
            result = (result ^ mixed(0, sum->lanes[lane])) * PRIME1 + PRIME4;
    }
    result += sum->length + size;
    for (; size >= 8; size -= 8, bytes += 8)
        result = rotated(result ^ mixed(0, word(bytes)), 27) * PRIME1 + PRIME4;
    if (size >= 4) {
        uint32_t half;
        memcpy(&half, bytes, 4);
        result = rotated(result ^ half * PRIME1, 23) * PRIME2 + PRIME3;
        size -= 4, bytes += 4;
    }
    for (; size > 0; size--, bytes++)
        result = rotated(result ^ *bytes * PRIME5, 11) * PRIME1;
    result = (result ^ result >> 33) * PRIME2;
    result = (result ^ result >> 29) * PRIME3;
    return result ^ result >> 32;
}
