/* Files, with the names and return values of BOINC's lib/filesys.h. See boinc_api.h. */
#ifndef BOINCVM_FILESYS_H
#define BOINCVM_FILESYS_H

#include <dirent.h>
#include <stdio.h>
#include <sys/param.h>
#include <sys/types.h>

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
extern int boinc_file_size_p(const char *path, double *size);

/* These return 1 or 0. */
extern int boinc_file_exists(const char *path); /* follows symbolic links */
extern int boinc_file_or_symlink_exists(const char *path);
extern int is_file(const char *path);
extern int is_dir(const char *path);
extern int is_dir_follow_symlinks(const char *path);
extern int is_symlink(const char *path);

#ifdef __cplusplus
} /* extern "C" */

#include <string>

inline int file_size(const char *path, double &size) { return boinc_file_size_p(path, &size); }

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
#endif
#endif
