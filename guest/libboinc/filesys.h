/* Files, with the names and return values of BOINC's lib/filesys.h. See boinc_api.h. */
#ifndef BOINCVM_FILESYS_H
#define BOINCVM_FILESYS_H

#include <dirent.h>
#include <grp.h>
#include <stdio.h>
#include <sys/param.h>
#include <sys/types.h>

#include "boinc_stdio.h"

#define DIR_LEN 2048
#define FILE_LEN 256

#ifdef __cplusplus
extern "C" {
#endif

/* The functions that return int return 0, or a number of error_numbers.h. */
extern int boinc_delete_file(const char *path); /* 0 also if there is none */
extern int boinc_touch_file(const char *path);
extern FILE *boinc_fopen(const char *path, const char *mode); /* closed on exec */
extern int boinc_copy(const char *from, const char *to);
extern int boinc_rename(const char *from, const char *to);
extern int boinc_mkdir(const char *path); /* 0 also if it is there */
extern int boinc_rmdir(const char *path);
extern int boinc_make_dirs(const char *directory, const char *path); /* all of path's but the last */
extern int boinc_truncate(const char *path, double size);
extern void boinc_getcwd(char *path);                                   /* MAXPATHLEN bytes */
extern void relative_to_absolute(const char *relative, char *absolute); /* MAXPATHLEN bytes */
extern void boinc_path_to_dir(const char *path, char *directory); /* "." without a slash */
extern int boinc_copy_attributes(const char *from, const char *to); /* mode, owner, times */
extern int boinc_chown(const char *path, gid_t group);
/* A new file DIRECTORY/PREFIX…, opened for writing; its path has MAXPATHLEN bytes. */
extern FILE *boinc_temp_file(const char *directory, const char *prefix, char *path);
extern int boinc_file_size_p(const char *path, double *size);

/* The file that a function here failed at last. */
extern char boinc_failed_file[MAXPATHLEN];

/* These return 1 or 0. */
extern int boinc_file_exists(const char *path); /* follows symbolic links */
extern int boinc_file_or_symlink_exists(const char *path);
extern int is_file(const char *path);
extern int is_dir(const char *path);
extern int is_file_follow_symlinks(const char *path);
extern int is_dir_follow_symlinks(const char *path);
extern int is_symlink(const char *path);

#ifdef __cplusplus
} /* extern "C" */

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "error_numbers.h"

inline int file_size(const char *path, double &size) { return boinc_file_size_p(path, &size); }

/* What the file takes on the disk. */
inline int file_size_alloc(const char *path, double &size) {
    struct stat status;
    if (stat(path, &status) != 0) {
        return ERR_NOT_FOUND;
    }
    size = static_cast<double>(status.st_blocks) * 512;
    return 0;
}

/* The names in a directory, one by one. */
class DirScanner {
    DIR *directory;

  public:
    explicit DirScanner(std::string const &path) : directory(opendir(path.c_str())) {}
    DirScanner(DirScanner const &) = delete;
    DirScanner &operator=(DirScanner const &) = delete;
    ~DirScanner() {
        if (directory) {
            closedir(directory);
        }
    }
    bool scan(std::string &name) {
        dirent *entry = directory ? readdir(directory) : nullptr;
        while (entry && (std::string(".") == entry->d_name || std::string("..") == entry->d_name)) {
            entry = readdir(directory);
        }
        if (entry) {
            name = entry->d_name;
        }
        return entry != nullptr;
    }
};

/* The same, as functions: dir_scan() returns 0 and a name, else ERR_NOT_FOUND. */
typedef DIR *DIRREF;
inline DIRREF dir_open(const char *path) { return opendir(path); }
inline int dir_scan(std::string &name, DIRREF directory) {
    while (dirent *entry = directory ? readdir(directory) : nullptr) {
        name = entry->d_name;
        if (name != "." && name != "..") {
            return 0;
        }
    }
    return ERR_NOT_FOUND;
}
inline int dir_scan(char *name, DIRREF directory, int size) {
    std::string found;
    int result = dir_scan(found, directory);
    if (result == 0) {
        if (size < 0 || found.size() >= static_cast<size_t>(size)) {
            return ERR_BUFFER_OVERFLOW;
        }
        std::memcpy(name, found.c_str(), found.size() + 1);
    }
    return result;
}
inline void dir_close(DIRREF directory) {
    if (directory) {
        closedir(directory);
    }
}
inline bool is_dir_empty(const char *path) {
    std::string name;
    return !DirScanner(path).scan(name);
}

/* The sum of the files in a directory; `measure` is one of the two functions above. Links are not
 * followed. Not BOINC's. */
inline int boincvm_dir_size(
    const char *path, double &size, bool recurse, int (*measure)(const char *, double &)) {
    DirScanner directory(path);
    std::string name;
    size = 0;
    if (!is_dir(path)) {
        return ERR_OPENDIR;
    }
    while (directory.scan(name)) {
        std::string inner = std::string(path) + "/" + name;
        double more = 0;
        if (is_dir(inner.c_str())) {
            if (recurse) {
                boincvm_dir_size(inner.c_str(), more, true, measure);
            }
        } else if (is_file(inner.c_str())) {
            measure(inner.c_str(), more);
        }
        size += more;
    }
    return 0;
}
inline int dir_size(const char *path, double &size, bool recurse = true) {
    return boincvm_dir_size(path, size, recurse, file_size);
}
inline int dir_size_alloc(const char *path, double &size, bool recurse = true) {
    return boincvm_dir_size(path, size, recurse, file_size_alloc);
}

/* Removes all that is in a directory. */
inline int clean_out_dir(const char *path) {
    DirScanner directory(path);
    std::string name;
    int result = is_dir(path) ? 0 : ERR_OPENDIR;
    while (result == 0 && directory.scan(name)) {
        std::string inner = std::string(path) + "/" + name;
        if (is_dir(inner.c_str())) {
            result = clean_out_dir(inner.c_str());
            if (result == 0) {
                result = boinc_rmdir(inner.c_str());
            }
        } else {
            result = boinc_delete_file(inner.c_str());
        }
    }
    return result;
}

/* Bytes of a file system. */
inline int get_filesystem_info(double &total, double &free, char *path = const_cast<char *>(".")) {
    struct statvfs status;
    if (statvfs(path, &status) != 0) {
        return ERR_STATFS;
    }
    total = static_cast<double>(status.f_blocks) * static_cast<double>(status.f_frsize);
    free = static_cast<double>(status.f_bavail) * static_cast<double>(status.f_frsize);
    return 0;
}

inline bool is_path_absolute(const std::string path) { return !path.empty() && path[0] == '/'; }

/* The first bytes of a file, or with `tail` the last; 0 for `limit` means all. */
inline int read_file_string(
    const char *path, std::string &content, size_t limit = 0, bool tail = false) {
    FILE *file = boinc_fopen(path, "rb");
    char buffer[65536];
    size_t length;
    content.clear();
    if (!file) {
        return ERR_FOPEN;
    }
    while ((tail || !limit || content.size() < limit) &&
           (length = fread(buffer, 1, sizeof buffer, file)) > 0) {
        content.append(buffer, length);
        if (limit && tail && content.size() > limit) {
            content.erase(0, content.size() - limit);
        }
    }
    int result = ferror(file) ? ERR_FREAD : 0;
    fclose(file);
    if (limit && content.size() > limit) {
        content.resize(limit);
    }
    return result;
}
/* In a place of malloc(), with a NUL after it. */
inline int read_file_malloc(const char *path, char *&content, size_t limit = 0, bool tail = false) {
    std::string whole;
    int result = read_file_string(path, whole, limit, tail);
    if (result != 0) {
        return result;
    }
    content = static_cast<char *>(std::malloc(whole.size() + 1));
    if (!content) {
        return ERR_MALLOC;
    }
    std::memcpy(content, whole.c_str(), whole.size() + 1);
    return 0;
}

/* A lock that ends with the process. lock() returns 0, ERR_OPEN, or -1 when another has it. */
struct FILE_LOCK {
    int fd;
    bool locked;
    FILE_LOCK() : fd(-1), locked(false) {}
    FILE_LOCK(FILE_LOCK const &) = delete;
    FILE_LOCK &operator=(FILE_LOCK const &) = delete;
    ~FILE_LOCK() {
        if (fd >= 0) {
            ::close(fd);
        }
    }
    int lock(const char *path) {
        struct flock whole = {};
        whole.l_type = F_WRLCK;
        whole.l_whence = SEEK_SET;
        if (fd < 0) {
            fd = ::open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0664);
        }
        if (fd < 0) {
            return ERR_OPEN;
        }
        locked = fcntl(fd, F_SETLK, &whole) == 0;
        return locked ? 0 : -1;
    }
    int unlock(const char *path) { /* and removes the file */
        if (fd >= 0) {
            ::close(fd);
        }
        fd = -1;
        locked = false;
        return boinc_delete_file(path);
    }
};
#endif
#endif
