/* See boinc_zip.h. The format is PKWARE's APPNOTE, the compression RFC 1951. An archive that is read
 * is trusted for nothing: each place is checked against the archive's length, each file against the
 * length and the checksum that the archive states. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "boinc_zip.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "filesys.h"

#define FAILED 2
#define LOCAL_HEAD 30 /* bytes of the fixed part of each record, and its mark */
#define LOCAL_MARK 0x04034B50u
#define ENTRY_HEAD 46
#define ENTRY_MARK 0x02014B50u
#define END_HEAD 22
#define END_MARK 0x06054B50u
#define STORED 0
#define DEFLATED 8
#define MADE_ON_UNIX 3
#define LONGEST_MATCH 258
#define WINDOW 32768
#define HASHES 32768

/* A whole file, or a null pointer where it is empty. */
struct bytes {
    const unsigned char *data;
    size_t length;
};

static bool map_file(const char *path, struct bytes *file, struct stat *status) {
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    void *data = NULL;
    if (descriptor < 0) {
        return false;
    }
    if (fstat(descriptor, status) != 0 || !S_ISREG(status->st_mode) ||
        status->st_size > (off_t)UINT32_MAX) {
        close(descriptor);
        return false;
    }
    file->length = (size_t)status->st_size;
    if (file->length > 0) {
        data = mmap(NULL, file->length, PROT_READ, MAP_PRIVATE, descriptor, 0);
    }
    close(descriptor);
    file->data = data == MAP_FAILED ? NULL : (const unsigned char *)data;
    return data != MAP_FAILED;
}

static void unmap_file(struct bytes *file) {
    if (file->data != NULL) {
        munmap((void *)file->data, file->length);
    }
}

static uint32_t checksum(uint32_t before, const unsigned char *data, size_t length) {
    static const uint32_t nibbles[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
        0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
        0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    uint32_t sum = ~before;
    size_t index;
    for (index = 0; index < length; index++) {
        sum ^= data[index];
        sum = sum >> 4 ^ nibbles[sum & 15];
        sum = sum >> 4 ^ nibbles[sum & 15];
    }
    return ~sum;
}

/* ---- the code of RFC 1951, 3.2.5 ---- */

static unsigned length_base(unsigned symbol) { /* of symbol 257 + `symbol` */
    unsigned bits = symbol < 8 ? 0 : symbol / 4 - 1;
    return symbol == 28 ? 258 : symbol < 8 ? 3 + symbol : 3 + ((4 + symbol % 4) << bits);
}

static unsigned length_bits(unsigned symbol) { return symbol < 8 || symbol == 28 ? 0 : symbol / 4 - 1; }

static unsigned distance_base(unsigned symbol) {
    return symbol < 4 ? 1 + symbol : 1 + ((2 + symbol % 2) << (symbol / 2 - 1));
}

static unsigned distance_bits(unsigned symbol) { return symbol < 4 ? 0 : symbol / 2 - 1; }

/* ---- compression ---- */

struct writer {
    FILE *file;
    uint64_t bits;
    unsigned count; /* of bits that wait */
    size_t length;  /* bytes written */
};

static void put_bits(struct writer *writer, unsigned value, unsigned count) {
    writer->bits |= (uint64_t)value << writer->count;
    writer->count += count;
    while (writer->count >= 8) {
        putc((int)(writer->bits & 255), writer->file);
        writer->bits >>= 8;
        writer->count -= 8;
        writer->length++;
    }
}

/* Codes go out with their first bit first, numbers with their last. */
static void put_code(struct writer *writer, unsigned code, unsigned count) {
    unsigned turned = 0, bit;
    for (bit = 0; bit < count; bit++) {
        turned |= (code >> bit & 1) << (count - 1 - bit);
    }
    put_bits(writer, turned, count);
}

static void put_symbol(struct writer *writer, unsigned symbol) {
    if (symbol < 144) {
        put_code(writer, 0x30 + symbol, 8);
    } else if (symbol < 256) {
        put_code(writer, 0x190 + symbol - 144, 9);
    } else if (symbol < 280) {
        put_code(writer, symbol - 256, 7);
    } else {
        put_code(writer, 0xC0 + symbol - 280, 8);
    }
}

static void put_match(struct writer *writer, unsigned length, unsigned distance) {
    unsigned symbol = 28;
    while (length_base(symbol) > length) {
        symbol--;
    }
    put_symbol(writer, 257 + symbol);
    put_bits(writer, length - length_base(symbol), length_bits(symbol));
    symbol = 29;
    while (distance_base(symbol) > distance) {
        symbol--;
    }
    put_code(writer, symbol, 5);
    put_bits(writer, distance - distance_base(symbol), distance_bits(symbol));
}

static unsigned hash(const unsigned char *data) {
    return ((unsigned)data[0] << 16 | (unsigned)data[1] << 8 | data[2]) * 2654435761u >> 17 & (HASHES - 1);
}

/* One block: each three bytes are looked up where they were seen last. `seen` has HASHES places. */
static void deflate(struct writer *writer, const struct bytes *from, uint32_t *seen) {
    size_t place = 0;
    memset(seen, 0xFF, HASHES * sizeof *seen);
    put_bits(writer, 1 | 1 << 1, 3); /* the last block, by the fixed code */
    while (place < from->length) {
        unsigned length = 0, key;
        size_t before = UINT32_MAX;
        if (from->length - place >= 3) {
            key = hash(from->data + place);
            before = seen[key];
            seen[key] = (uint32_t)place;
        }
        if (before != UINT32_MAX && place - before <= WINDOW) {
            while (length < LONGEST_MATCH && place + length < from->length &&
                   from->data[before + length] == from->data[place + length]) {
                length++;
            }
        }
        if (length >= 3) {
            put_match(writer, length, (unsigned)(place - before));
            place += length;
        } else {
            put_symbol(writer, from->data[place++]);
        }
    }
    put_symbol(writer, 256);
    put_bits(writer, 0, 7); /* to a whole byte */
}

/* ---- an archive that is made ---- */

static void put_number(FILE *file, uint32_t value, unsigned bytes) {
    for (; bytes > 0; bytes--, value >>= 8) {
        putc((int)(value & 255), file);
    }
}

struct entry {
    const char *name;
    uint32_t method, time, sum, packed, length, mode, place;
};

/* The part that both of an entry's heads have. */
static void put_description(FILE *file, const struct entry *entry) {
    put_number(file, 20, 2);      /* the version that can unpack it: 2.0 */
    put_number(file, 1 << 11, 2); /* names are UTF-8 */
    put_number(file, entry->method, 2);
    put_number(file, entry->time, 4);
    put_number(file, entry->sum, 4);
    put_number(file, entry->packed, 4);
    put_number(file, entry->length, 4);
    put_number(file, (uint32_t)strlen(entry->name), 2);
    put_number(file, 0, 2); /* no further fields */
}

static uint32_t dos_time(time_t when) {
    struct tm parts;
    if (localtime_r(&when, &parts) == NULL || parts.tm_year < 80 || parts.tm_year > 207) {
        return 1 << 16 | 1 << 21; /* 1 January 1980 */
    }
    return (uint32_t)parts.tm_sec / 2 | (uint32_t)parts.tm_min << 5 | (uint32_t)parts.tm_hour << 11 |
           (uint32_t)parts.tm_mday << 16 | (uint32_t)(parts.tm_mon + 1) << 21 |
           (uint32_t)(parts.tm_year - 80) << 25;
}

static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static bool add_file(FILE *archive, const char *path, struct entry *entry, uint32_t *seen) {
    struct bytes content;
    struct stat status;
    struct writer writer;
    off_t start = ftello(archive), data;
    if (start > (off_t)UINT32_MAX || !map_file(path, &content, &status)) {
        return false;
    }
    entry->name = last_part(path);
    entry->method = DEFLATED;
    entry->time = dos_time(status.st_mtime);
    entry->sum = checksum(0, content.data, content.length);
    entry->length = (uint32_t)content.length;
    entry->mode = (uint32_t)status.st_mode;
    entry->place = (uint32_t)start;
    put_number(archive, LOCAL_MARK, 4);
    put_description(archive, entry);
    fputs(entry->name, archive);
    data = ftello(archive);
    memset(&writer, 0, sizeof writer);
    writer.file = archive;
    deflate(&writer, &content, seen);
    if (writer.length >= content.length) { /* it has only become longer: as it is, in its place */
        entry->method = STORED;
        writer.length = content.length;
        fseeko(archive, data, SEEK_SET);
        fwrite(content.data != NULL ? (const void *)content.data : "", 1, content.length, archive);
    }
    unmap_file(&content);
    entry->packed = (uint32_t)writer.length;
    fseeko(archive, start + 4, SEEK_SET);
    put_description(archive, entry);
    fseeko(archive, data + (off_t)writer.length, SEEK_SET);
    return !ferror(archive);
}

static bool put_directory(FILE *archive, const struct entry *entries, size_t count) {
    off_t start = ftello(archive), end;
    size_t index;
    for (index = 0; index < count; index++) {
        const struct entry *entry = &entries[index];
        put_number(archive, ENTRY_MARK, 4);
        put_number(archive, MADE_ON_UNIX << 8 | 20, 2);
        put_description(archive, entry);
        put_number(archive, 0, 2); /* no comment, the first disk, no internal attributes */
        put_number(archive, 0, 2);
        put_number(archive, 0, 2);
        put_number(archive, entry->mode << 16, 4);
        put_number(archive, entry->place, 4);
        fputs(entry->name, archive);
    }
    end = ftello(archive);
    put_number(archive, END_MARK, 4);
    put_number(archive, 0, 4); /* one disk */
    put_number(archive, (uint32_t)count, 2);
    put_number(archive, (uint32_t)count, 2);
    put_number(archive, (uint32_t)(end - start), 4);
    put_number(archive, (uint32_t)start, 4);
    put_number(archive, 0, 2); /* no comment */
    return start <= (off_t)UINT32_MAX && end <= (off_t)UINT32_MAX && fflush(archive) == 0 &&
           ftruncate(fileno(archive), ftello(archive)) == 0; /* what a stored file was before */
}

int boincvm_zip(const char *archive, const char *const *files, size_t count) {
    struct entry *entries = (struct entry *)calloc(count + 1, sizeof *entries);
    uint32_t *seen = (uint32_t *)malloc(HASHES * sizeof *seen);
    FILE *file = boinc_fopen(archive, "wb+");
    bool is_good = entries != NULL && seen != NULL && file != NULL && count <= 65535;
    size_t index;
    for (index = 0; is_good && index < count; index++) {
        is_good = add_file(file, files[index], &entries[index], seen);
    }
    is_good = is_good && put_directory(file, entries, count);
    if (file != NULL && (fclose(file) != 0 || !is_good)) {
        is_good = false;
        unlink(archive);
    }
    free(entries);
    free(seen);
    return is_good ? 0 : FAILED;
}

/* ---- decompression ---- */

struct reader {
    const unsigned char *data;
    size_t length, place;
    uint32_t bits;
    unsigned count;
    bool is_bad;
    FILE *out;
    size_t written, limit;
    uint32_t sum;
    unsigned char *window; /* WINDOW bytes; what is complete is in `out` */
};

static unsigned get_bits(struct reader *reader, unsigned count) {
    unsigned value;
    while (reader->count < count) {
        if (reader->place >= reader->length) {
            reader->is_bad = true;
            return 0;
        }
        reader->bits |= (uint32_t)reader->data[reader->place++] << reader->count;
        reader->count += 8;
    }
    value = reader->bits & ((1u << count) - 1);
    reader->bits >>= count;
    reader->count -= count;
    return value;
}

static void flush_window(struct reader *reader) {
    size_t kept = reader->written % WINDOW;
    if (kept == 0 && reader->written > 0) {
        kept = WINDOW;
    }
    reader->sum = checksum(reader->sum, reader->window, kept);
    if (fwrite(reader->window, 1, kept, reader->out) != kept) {
        reader->is_bad = true;
    }
}

static void put_byte(struct reader *reader, unsigned char byte) {
    if (reader->written >= reader->limit) {
        reader->is_bad = true;
        return;
    }
    reader->window[reader->written++ % WINDOW] = byte;
    if (reader->written % WINDOW == 0) {
        flush_window(reader);
    }
}

/* A code by how many of its words have each length, and its symbols in the words' order. */
struct code {
    unsigned short counts[16];
    unsigned short symbols[288];
};

static bool make_code(struct code *code, const unsigned char *lengths, unsigned count) {
    unsigned short starts[16];
    unsigned index, length;
    int left = 1;
    memset(code->counts, 0, sizeof code->counts);
    for (index = 0; index < count; index++) {
        code->counts[lengths[index]]++;
    }
    starts[1] = 0;
    for (length = 1; length < 16; length++) {
        left = 2 * left - code->counts[length];
        if (left < 0) {
            return false;
        }
        if (length < 15) {
            starts[length + 1] = (unsigned short)(starts[length] + code->counts[length]);
        }
    }
    for (index = 0; index < count; index++) {
        if (lengths[index] != 0) {
            code->symbols[starts[lengths[index]]++] = (unsigned short)index;
        }
    }
    return true;
}

static unsigned get_symbol(struct reader *reader, const struct code *code) {
    unsigned word = 0, first = 0, index = 0, length;
    for (length = 1; length < 16; length++) {
        unsigned count = code->counts[length];
        word |= get_bits(reader, 1);
        if (word - first < count) {
            return code->symbols[index + word - first];
        }
        index += count;
        first = (first + count) << 1;
        word <<= 1;
    }
    reader->is_bad = true;
    return 0;
}

static void inflate_codes(
    struct reader *reader, const struct code *literals, const struct code *distances) {
    while (!reader->is_bad) {
        unsigned symbol = get_symbol(reader, literals), length, distance;
        if (symbol == 256) {
            return;
        }
        if (symbol < 256) {
            put_byte(reader, (unsigned char)symbol);
            continue;
        }
        length = length_base(symbol - 257) + get_bits(reader, length_bits(symbol - 257));
        symbol = get_symbol(reader, distances);
        if (symbol > 29) {
            reader->is_bad = true;
            return;
        }
        distance = distance_base(symbol) + get_bits(reader, distance_bits(symbol));
        if (length > LONGEST_MATCH || distance > reader->written) {
            reader->is_bad = true;
            return;
        }
        for (; length > 0 && !reader->is_bad; length--) {
            put_byte(reader, reader->window[(reader->written - distance) % WINDOW]);
        }
    }
}

static void inflate_fixed(struct reader *reader) {
    unsigned char lengths[288];
    struct code literals, distances;
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    make_code(&literals, lengths, 288);
    memset(lengths, 5, 30);
    make_code(&distances, lengths, 30);
    inflate_codes(reader, &literals, &distances);
}

static void inflate_dynamic(struct reader *reader) {
    static const unsigned char order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                            11, 4,  12, 3, 13, 2, 14, 1, 15};
    unsigned char lengths[320];
    struct code literals, distances;
    unsigned literal_count = 257 + get_bits(reader, 5), distance_count = 1 + get_bits(reader, 5);
    unsigned count = 4 + get_bits(reader, 4), index;
    memset(lengths, 0, sizeof lengths);
    for (index = 0; index < count; index++) {
        lengths[order[index]] = (unsigned char)get_bits(reader, 3);
    }
    if (literal_count > 286 || distance_count > 30 || !make_code(&literals, lengths, 19)) {
        reader->is_bad = true;
        return;
    }
    memset(lengths, 0, sizeof lengths);
    for (index = 0; index < literal_count + distance_count && !reader->is_bad;) {
        unsigned symbol = get_symbol(reader, &literals), repeated = 1;
        unsigned char length = (unsigned char)symbol;
        if (symbol >= 16) {
            length = symbol == 16 && index > 0 ? lengths[index - 1] : 0;
            repeated = symbol == 16   ? 3 + get_bits(reader, 2)
                       : symbol == 17 ? 3 + get_bits(reader, 3)
                                      : 11 + get_bits(reader, 7);
        }
        if ((symbol == 16 && index == 0) || index + repeated > literal_count + distance_count) {
            reader->is_bad = true;
            return;
        }
        for (; repeated > 0; repeated--) {
            lengths[index++] = length;
        }
    }
    if (!make_code(&literals, lengths, literal_count) ||
        !make_code(&distances, lengths + literal_count, distance_count)) {
        reader->is_bad = true;
        return;
    }
    inflate_codes(reader, &literals, &distances);
}

static void inflate_stored(struct reader *reader) {
    unsigned length, turned;
    reader->bits = 0;
    reader->count = 0;
    length = get_bits(reader, 16);
    turned = get_bits(reader, 16);
    if ((length ^ turned) != 0xFFFF) {
        reader->is_bad = true;
    }
    for (; length > 0 && !reader->is_bad; length--) {
        put_byte(reader, (unsigned char)get_bits(reader, 8));
    }
}

static void inflate(struct reader *reader) {
    bool is_last = false;
    while (!is_last && !reader->is_bad) {
        is_last = get_bits(reader, 1) != 0;
        switch (get_bits(reader, 2)) {
        case 0:
            inflate_stored(reader);
            break;
        case 1:
            inflate_fixed(reader);
            break;
        case 2:
            inflate_dynamic(reader);
            break;
        default:
            reader->is_bad = true;
        }
    }
}

/* ---- an archive that is read ---- */

static uint32_t number(const unsigned char *data, unsigned bytes) {
    uint32_t value = 0;
    while (bytes > 0) {
        value = value << 8 | data[--bytes];
    }
    return value;
}

/* The last record, which says where the directory is; a null pointer if there is none. */
static const unsigned char *find_end(const struct bytes *archive) {
    size_t back;
    for (back = END_HEAD; back <= archive->length && back <= END_HEAD + 65535; back++) {
        const unsigned char *place = archive->data + archive->length - back;
        if (number(place, 4) == END_MARK) {
            return place;
        }
    }
    return NULL;
}

static bool unpack(const struct bytes *archive, const unsigned char *entry, FILE *out) {
    uint32_t place = number(entry + 42, 4), packed = number(entry + 20, 4);
    uint32_t method = number(entry + 10, 2);
    const unsigned char *head = archive->data + place;
    struct reader reader;
    size_t start;
    if ((number(entry + 8, 2) & 1) != 0 || archive->length < LOCAL_HEAD ||
        place > archive->length - LOCAL_HEAD || number(head, 4) != LOCAL_MARK) {
        return false;
    }
    start = (size_t)place + LOCAL_HEAD + number(head + 26, 2) + number(head + 28, 2);
    if (start > archive->length || packed > archive->length - start) {
        return false;
    }
    memset(&reader, 0, sizeof reader);
    reader.data = archive->data + start;
    reader.length = packed;
    reader.out = out;
    reader.limit = number(entry + 24, 4);
    reader.window = (unsigned char *)malloc(WINDOW);
    if (reader.window == NULL) {
        return false;
    }
    if (method == DEFLATED) {
        inflate(&reader);
        if (reader.written % WINDOW != 0) {
            flush_window(&reader);
        }
    } else if (method == STORED && packed == reader.limit) {
        reader.written = packed;
        reader.sum = checksum(0, reader.data, packed);
        reader.is_bad = fwrite(reader.data, 1, packed, out) != packed;
    } else {
        reader.is_bad = true;
    }
    free(reader.window);
    return !reader.is_bad && reader.written == reader.limit && reader.sum == number(entry + 16, 4);
}

/* Neither absolute nor with "..", on whatever system it was made. */
static bool stays_inside(const char *name) {
    const char *part = name;
    for (;;) {
        size_t length = strcspn(part, "/\\");
        if ((length == 2 && strncmp(part, "..", 2) == 0) || (length == 0 && part == name)) {
            return false;
        }
        if (part[length] == '\0') {
            return true;
        }
        part += length + 1;
    }
}

static bool unpack_into(
    const struct bytes *archive, const unsigned char *entry, const char *name,
    const char *directory) {
    char path[MAXPATHLEN];
    uint32_t mode = number(entry + 38, 4) >> 16 & 0777;
    FILE *out;
    bool is_good;
    if (!stays_inside(name) ||
        (size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path ||
        boinc_make_dirs(directory, name) != 0) {
        return false;
    }
    if (name[strlen(name) - 1] == '/') {
        return true;
    }
    out = boinc_fopen(path, "wb");
    if (out == NULL) {
        return false;
    }
    is_good = unpack(archive, entry, out);
    if (mode != 0 && entry[5] == MADE_ON_UNIX) {
        is_good = fchmod(fileno(out), mode) == 0 && is_good;
    }
    return fclose(out) == 0 && is_good;
}

/* Each file of an archive, or `wanted` alone, which goes to `out`. */
static int read_archive(const char *path, const char *directory, const char *wanted, FILE *out) {
    struct bytes archive;
    struct stat status;
    const unsigned char *end, *entry;
    uint32_t count;
    int result = wanted != NULL ? FAILED : 0;
    if (!map_file(path, &archive, &status)) {
        return FAILED;
    }
    end = find_end(&archive);
    count = end != NULL ? number(end + 10, 2) : 0;
    if (end == NULL || number(end + 16, 4) > (size_t)(end - archive.data)) {
        unmap_file(&archive);
        return FAILED;
    }
    for (entry = archive.data + number(end + 16, 4); count > 0; count--) {
        char name[MAXPATHLEN];
        size_t length;
        if (end - entry < ENTRY_HEAD || number(entry, 4) != ENTRY_MARK) {
            result = FAILED;
            break;
        }
        length = number(entry + 28, 2);
        if (length == 0 || length >= sizeof name || (size_t)(end - entry) < ENTRY_HEAD + length) {
            result = FAILED;
            break;
        }
        memcpy(name, entry + ENTRY_HEAD, length);
        name[length] = '\0';
        if (wanted == NULL && !unpack_into(&archive, entry, name, directory)) {
            result = FAILED;
            break;
        }
        if (wanted != NULL && strcmp(name, wanted) == 0) {
            result = unpack(&archive, entry, out) ? 0 : FAILED;
            break;
        }
        length += ENTRY_HEAD + number(entry + 30, 2) + number(entry + 32, 2);
        entry += length < (size_t)(end - entry) ? length : (size_t)(end - entry);
    }
    unmap_file(&archive);
    return result;
}

int boinc_zip(int kind, const char *archive, const char *file_or_directory) {
    if (archive == NULL) {
        return FAILED;
    }
    if (kind == ZIP_IT) {
        return boincvm_zip(archive, &file_or_directory, file_or_directory != NULL ? 1 : 0);
    }
    if (file_or_directory == NULL || *file_or_directory == '\0') {
        file_or_directory = ".";
    }
    return boinc_mkdir(file_or_directory) != 0 && !is_dir_follow_symlinks(file_or_directory)
               ? FAILED
               : read_archive(archive, file_or_directory, NULL, NULL);
}

int boincvm_unzip_file(const char *archive, const char *name, char **content, size_t *length) {
    FILE *out = open_memstream(content, length);
    int result;
    if (out == NULL) {
        return FAILED;
    }
    result = read_archive(archive, NULL, name, out);
    return fclose(out) == 0 ? result : FAILED;
}
