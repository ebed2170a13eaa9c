/* ZIP archives, with the names of BOINC's zip/boinc_zip.h. See boinc_api.h.
 *
 * boinc_zip(ZIP_IT, ARCHIVE, FILES) makes an archive of regular files, by the last part of their
 * names, with their modes; what was in ARCHIVE is lost. boinc_zip(UNZIP_IT, ARCHIVE, DIRECTORY)
 * unpacks one, into the working directory if DIRECTORY is empty or a null pointer. They return 0, or
 * 2. Compression is "deflate" (by the fixed code of RFC 1951) or none; encrypted archives, files of
 * 4 GiB or more, and names that lead out of the directory are refused. */
#ifndef BOINCVM_BOINC_ZIP_H
#define BOINCVM_BOINC_ZIP_H

#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#define ZIP_IT 1
#define UNZIP_IT 0

#define SORT_ASCENDING 0x01
#define SORT_DESCENDING 0x02
#define SORT_TIME 0x10
#define SORT_NAME 0x20

#ifdef __cplusplus
extern "C" {
#endif

extern int boinc_zip(int kind, const char *archive, const char *file_or_directory);
extern int boincvm_zip(const char *archive, const char *const *files, size_t count);
/* The content of the archive's file `name`, in a place of malloc(). */
extern int boincvm_unzip_file(const char *archive, const char *name, char **content, size_t *length);

#ifdef __cplusplus
} /* extern "C" */

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "filesys.h"

typedef std::vector<std::string> ZipFileList;

inline int boinc_zip(int kind, const std::string &archive, const ZipFileList *files) {
    std::vector<const char *> names;
    for (size_t index = 0; files && index < files->size(); index++) {
        names.push_back((*files)[index].c_str());
    }
    if (kind == ZIP_IT) {
        return boincvm_zip(archive.c_str(), names.data(), names.size());
    }
    return boinc_zip(UNZIP_IT, archive.c_str(), names.empty() ? nullptr : names[0]);
}

inline int boinc_zip(int kind, const std::string &archive, const std::string &file) {
    return boinc_zip(kind, archive.c_str(), file.c_str());
}

inline int boinc_UnzipToMemory(char *archive, char *name, std::string &content) {
    char *data = nullptr;
    size_t length = 0;
    int result = boincvm_unzip_file(archive, name, &data, &length);
    content.assign(data ? data : "", length);
    std::free(data);
    return result;
}

/* The regular files DIRECTORY/… in whose names the parts of `pattern`, which | separates, come in
 * that order ("", "*" and "*.*": all); by name or time, from the last to the first unless
 * SORT_ASCENDING. False: there is no list. */
inline bool boinc_filelist(
    const std::string &directory, const std::string &pattern, ZipFileList *list,
    const unsigned char order = SORT_NAME | SORT_DESCENDING, const bool clear = true) {
    std::string parts = (pattern == "*" || pattern == "*.*" ? std::string() : pattern) + "|", name;
    if (!list) {
        return false;
    }
    if (clear) {
        list->clear();
    }
    DirScanner scanner(directory);
    while (scanner.scan(name)) {
        size_t place = 0;
        for (size_t start = 0; start < parts.size() && place != std::string::npos;) {
            size_t end = parts.find('|', start);
            place = name.find(parts.substr(start, end - start), place);
            place += place == std::string::npos ? 0 : end - start;
            start = end + 1;
        }
        std::string path = directory;
        if (path.empty() || path[path.size() - 1] != '/') {
            path += '/';
        }
        path += name;
        if (place != std::string::npos && is_file(path.c_str())) {
            list->push_back(path);
        }
    }
    auto is_before = [order](const std::string &first, const std::string &second) {
        struct stat one = {}, other = {};
        if ((order & SORT_TIME) && stat(first.c_str(), &one) == 0 &&
            stat(second.c_str(), &other) == 0) {
            return one.st_mtim.tv_sec != other.st_mtim.tv_sec
                       ? one.st_mtim.tv_sec < other.st_mtim.tv_sec
                       : one.st_mtim.tv_nsec < other.st_mtim.tv_nsec;
        }
        return first < second;
    };
    std::sort(list->begin(), list->end(), is_before);
    if (!(order & SORT_ASCENDING)) {
        std::reverse(list->begin(), list->end());
    }
    return true;
}
#endif
#endif
