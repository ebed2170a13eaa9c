/* See filesys.h and util.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "filesys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "error_numbers.h"
#include "str_replace.h"
#include "util.h"

char boinc_failed_file[MAXPATHLEN];

/* `error`, for the file `path`. */
static int fail(const char *path, int error) {
    strlcpy(boinc_failed_file, path, sizeof boinc_failed_file);
    return error;
}

int boinc_delete_file(const char *path) {
    return unlink(path) == 0 || errno == ENOENT ? 0 : fail(path, ERR_UNLINK);
}

int boinc_touch_file(const char *path) {
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    int result;
    if (file < 0) {
        return ERR_FOPEN;
    }
    result = futimens(file, NULL) == 0 ? 0 : ERR_WRITE;
    close(file);
    return result;
}

FILE *boinc_fopen(const char *path, const char *mode) {
    FILE *file = fopen(path, mode);
    if (file != NULL) {
        fcntl(fileno(file), F_SETFD, FD_CLOEXEC);
    }
    return file;
}

static int copy_content(FILE *from, FILE *to) {
    char buffer[65536];
    size_t length;
    while ((length = fread(buffer, 1, sizeof buffer, from)) > 0) {
        if (fwrite(buffer, 1, length, to) != length) {
            return ERR_FWRITE;
        }
    }
    return ferror(from) ? ERR_FREAD : 0;
}

int boinc_copy(const char *from, const char *to) {
    FILE *source = boinc_fopen(from, "rb"), *target;
    struct stat status;
    int result;
    if (source == NULL) {
        return ERR_FOPEN;
    }
    target = boinc_fopen(to, "wb");
    if (target == NULL) {
        fclose(source);
        return ERR_FOPEN;
    }
    result = copy_content(source, target);
    if (result == 0 && fstat(fileno(source), &status) == 0) {
        result = fchmod(fileno(target), status.st_mode & 07777) == 0 ? 0 : ERR_WRITE;
    }
    fclose(source);
    if (fclose(target) != 0 && result == 0) {
        result = ERR_FWRITE;
    }
    return result;
}

int boinc_rename(const char *from, const char *to) { return rename(from, to) == 0 ? 0 : fail(to, ERR_RENAME); }

int boinc_mkdir(const char *path) {
    return is_dir(path) || mkdir(path, 0777) == 0 ? 0 : fail(path, ERR_MKDIR);
}

int boinc_copy_attributes(const char *from, const char *to) {
    struct stat status;
    struct timespec times[2];
    if (stat(from, &status) != 0) {
        return fail(from, ERR_STAT);
    }
    times[0] = status.st_atim;
    times[1] = status.st_mtim;
    if (chown(to, status.st_uid, status.st_gid) != 0 && errno != EPERM) {
        return fail(to, ERR_CHOWN);
    }
    if (chmod(to, status.st_mode & 07777) != 0 || utimensat(AT_FDCWD, to, times, 0) != 0) {
        return fail(to, ERR_CHMOD);
    }
    return 0;
}

int boinc_chown(const char *path, gid_t group) {
    return chown(path, (uid_t)-1, group) == 0 ? 0 : fail(path, ERR_CHOWN);
}

FILE *boinc_temp_file(const char *directory, const char *prefix, char *path) {
    int file;
    if ((size_t)snprintf(path, MAXPATHLEN, "%s/%sXXXXXX", directory, prefix) >= MAXPATHLEN) {
        return NULL;
    }
    file = mkostemp(path, O_CLOEXEC);
    return file < 0 ? NULL : fdopen(file, "wb");
}

void boinc_path_to_dir(const char *path, char *directory) {
    const char *slash = strrchr(path, '/');
    size_t length = slash != NULL ? (size_t)(slash - path) : 0;
    memmove(directory, slash != NULL ? path : ".", slash != NULL ? length : 1);
    directory[slash != NULL ? length : 1] = '\0';
}

int boinc_rmdir(const char *path) { return rmdir(path) == 0 ? 0 : fail(path, ERR_RMDIR); }

int boinc_make_dirs(const char *directory, const char *path) {
    char whole[MAXPATHLEN];
    size_t start = strlcpy(whole, directory, sizeof whole);
    const char *end = strchr(path, '/');
    while (end != NULL) {
        size_t length = (size_t)(end - path);
        if (start + 1 + length >= sizeof whole) {
            return ERR_BUFFER_OVERFLOW;
        }
        whole[start] = '/';
        memcpy(whole + start + 1, path, length);
        whole[start + 1 + length] = '\0';
        if (boinc_mkdir(whole) != 0) {
            return ERR_MKDIR;
        }
        end = strchr(end + 1, '/');
    }
    return 0;
}

int boinc_truncate(const char *path, double size) {
    return truncate(path, (off_t)size) == 0 ? 0 : fail(path, ERR_TRUNCATE);
}

void boinc_getcwd(char *path) {
    if (getcwd(path, MAXPATHLEN) == NULL) {
        path[0] = '\0';
    }
}

void relative_to_absolute(const char *relative, char *absolute) {
    boinc_getcwd(absolute);
    if (*relative != '\0') {
        strlcat(absolute, "/", MAXPATHLEN);
        strlcat(absolute, relative, MAXPATHLEN);
    }
}

int boinc_file_size_p(const char *path, double *size) {
    struct stat status;
    if (stat(path, &status) != 0) {
        return ERR_NOT_FOUND;
    }
    *size = (double)status.st_size;
    return 0;
}

int boinc_file_exists(const char *path) {
    struct stat status;
    return stat(path, &status) == 0;
}

int boinc_file_or_symlink_exists(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0;
}

int is_file(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 && S_ISREG(status.st_mode);
}

int is_dir(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

int is_file_follow_symlinks(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

int is_dir_follow_symlinks(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

int is_symlink(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 && S_ISLNK(status.st_mode);
}

double dtime(void) {
    struct timeval now;
    gettimeofday(&now, NULL);
    return (double)now.tv_sec + (double)now.tv_usec / 1e6;
}

double dday(void) {
    time_t now = time(NULL);
    return (double)(now - now % SECONDS_PER_DAY);
}

void boinc_sleep(double seconds) {
    struct timespec left;
    if (!(seconds > 0)) {
        return;
    }
    left.tv_sec = (time_t)seconds;
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}
