/* The packed folder on Windows: a cabinet, which Windows itself (cabinet.dll) unpacks. What it
   writes, and where, is decided here. */

#pragma once

#include "windows_folder.h"

#include <fdi.h> /* needs windows.h before it */

#define TOP "boincvm\\" /* with it each name in the archive begins */
#define MOST_FILES 10000
#define MOST_BYTES (256ll << 20)

static struct {
    const wchar_t *archive;
    wchar_t path[LONGEST];   /* of the new directory, then of a file in it */
    size_t length;           /* of the new directory's path, with the last backslash */
    HANDLE output;           /* the file that is being written, or INVALID_HANDLE_VALUE */
    long long announced;     /* bytes, of all files so far */
    long long written;       /* bytes */
    int files;
    DWORD error;             /* Windows' error if the disk did not take what was written */
} unpacking;

/* Tell whether a part of a path is a device to Windows, such as NUL or com1.txt. */
static int is_device(const char *part) {
    size_t length = strcspn(part, ".\\");
    const char *device = length == 3 ? "con prn aux nul "
        : length == 4 && part[3] >= '0' && part[3] <= '9' ? "com lpt " : "";
    for (; *device != 0; device += 4)
        if (_strnicmp(part, device, 3) == 0)
            return 1;
    return 0;
}

/* Tell whether `name` is a path that leads nowhere but beneath a directory, with the characters
   that a folder's names have. */
static int is_beneath(const char *name) {
    static const char KNOWN[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+";
    if (strlen(name) > LONGEST_NAME)
        return 0;
    for (;;) {
        size_t length = strspn(name, KNOWN);
        if (length == 0 || name[length - 1] == '.' || is_device(name))
            return 0;
        if (name[length] == 0)
            return 1;
        if (name[length] != '\\')
            return 0;
        name += length + 1;
    }
}

/* Remember Windows' error, which says why the disk did not take something, and return -1. */
static INT_PTR refused_by_disk(void) {
    unpacking.error = GetLastError();
    return -1;
}

/* Create the file `name` of the archive, and the directories that it lies in. */
static INT_PTR create(const char *name, long size) {
    unpacking.files++;
    unpacking.announced += size;
    if (strncmp(name, TOP, strlen(TOP)) != 0 || !is_beneath(name += strlen(TOP)) || size < 0
        || unpacking.files > MOST_FILES || unpacking.announced > MOST_BYTES)
        return -1;
    size_t at = unpacking.length;
    if (at + strlen(name) >= LONGEST)
        return -1;
    for (; *name != 0; name++) {
        unpacking.path[at] = 0;
        if (*name == '\\' && !CreateDirectoryW(unpacking.path, NULL)
            && GetLastError() != ERROR_ALREADY_EXISTS)
            return refused_by_disk();
        unpacking.path[at++] = (unsigned char)*name;
    }
    unpacking.path[at] = 0;
    HANDLE file = CreateFileW(
        unpacking.path, GENERIC_WRITE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return GetLastError() == ERROR_FILE_EXISTS ? -1 : refused_by_disk();
    unpacking.output = file;
    return (INT_PTR)file;
}

/* What cabinet.dll calls. All that it opens by name is the archive. */

static void *DIAMONDAPI allocate(ULONG size) {
    return malloc(size);
}

static void DIAMONDAPI release(void *memory) {
    free(memory);
}

static INT_PTR DIAMONDAPI open_archive(char *name, int flags, int mode) {
    (void)name, (void)flags, (void)mode;
    return (INT_PTR)opened(unpacking.archive);
}

static UINT DIAMONDAPI read_archive(INT_PTR file, void *to, UINT size) {
    DWORD got;
    return ReadFile((HANDLE)file, to, size, &got, NULL) ? got : (UINT)-1;
}

static UINT DIAMONDAPI write_output(INT_PTR file, void *bytes, UINT size) {
    DWORD put = 0;
    unpacking.written += size;
    if (unpacking.written > MOST_BYTES)
        return (UINT)-1;
    if (!WriteFile((HANDLE)file, bytes, size, &put, NULL))
        refused_by_disk();
    else if (put != size)
        unpacking.error = ERROR_DISK_FULL;
    return put;
}

static int DIAMONDAPI close_file(INT_PTR file) {
    if ((HANDLE)file == unpacking.output)
        unpacking.output = INVALID_HANDLE_VALUE;
    return CloseHandle((HANDLE)file) ? 0 : -1;
}

static LONG DIAMONDAPI seek_archive(INT_PTR file, LONG distance, int from) {
    LARGE_INTEGER where, to = {.QuadPart = distance};
    return SetFilePointerEx((HANDLE)file, to, &where, from) ? (LONG)where.QuadPart : -1;
}

static INT_PTR DIAMONDAPI on_progress(FDINOTIFICATIONTYPE kind, FDINOTIFICATION *about) {
    switch (kind) {
    case fdintCABINET_INFO:
    case fdintENUMERATE:
        return 0;
    case fdintCOPY_FILE:
        return create(about->psz1, about->cb);
    case fdintCLOSE_FILE_INFO:
        if (close_file(about->hf) != 0)
            return refused_by_disk();
        return TRUE;
    default: /* the archive has a part elsewhere */
        return -1;
    }
}

/* Unpack `archive` into the directory `target`, which exists and is empty. Return 1, or 0 if the
   archive is not whole or holds what it must not, unless `unpacking.error` has another reason. */
static int unpack(const wchar_t *archive, const wchar_t *target) {
    /* Windows' own, not one that is in this program's directory or in the slot. */
    HMODULE library = LoadLibraryExW(L"cabinet.dll", NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
    if (library == NULL) {
        unpacking.error = GetLastError();
        return 0;
    }
    __typeof__(&FDICreate) begin = (void *)GetProcAddress(library, "FDICreate");
    __typeof__(&FDICopy) copy = (void *)GetProcAddress(library, "FDICopy");
    __typeof__(&FDIDestroy) end = (void *)GetProcAddress(library, "FDIDestroy");
    ERF reason;
    HFDI context = begin == NULL || copy == NULL || end == NULL ? NULL
        : begin(allocate, release, open_archive, read_archive, write_output, close_file,
            seek_archive, cpuUNKNOWN, &reason);
    if (context == NULL) {
        unpacking.error = ERROR_NOT_ENOUGH_MEMORY;
        return 0;
    }
    unpacking.archive = archive;
    unpacking.output = INVALID_HANDLE_VALUE;
    unpacking.length = wcslen(target) + 1;
    wcscpy(unpacking.path, target);
    unpacking.path[unpacking.length - 1] = L'\\';
    char cabinet[] = "boincvm.cab", directory[] = "";
    BOOL done = copy(context, cabinet, directory, 0, on_progress, NULL, NULL);
    end(context);
    if (unpacking.output != INVALID_HANDLE_VALUE)
        CloseHandle(unpacking.output);
    /* wine goes on when something was not written. */
    return done && unpacking.error == 0 && unpacking.written == unpacking.announced;
}
