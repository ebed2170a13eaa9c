/* A folder on Windows: its files, for the check of its manifest, and its Python, which is run in
   this process. */

#pragma once

#include <wchar.h>
#include <windows.h>

#include "manifest.h"

#define LONGEST 32768 /* characters of a path */
#define LONGEST_NAME 128 /* of a file in the folder; it has ASCII only */
#define PATIENCE 2000 /* milliseconds, as in host/patience.py */
#define PAUSE 50

static wchar_t folder[LONGEST]; /* verbatim, with the last backslash */
static size_t folder_length;

/* Write the absolute `path` to `to` in the form of which Windows alters nothing, and that may be
   longer than MAX_PATH. Return its length, or 0 if it has no room. */
static size_t verbatim(const wchar_t *path, wchar_t to[LONGEST]) {
    const wchar_t *start = L"\\\\?\\";
    if (wcsncmp(path, L"\\\\?\\", 4) == 0)
        start = L"";
    else if (wcsncmp(path, L"\\\\", 2) == 0)
        start = L"\\\\?\\UNC", path++;
    size_t length = wcslen(start) + wcslen(path);
    if (length >= LONGEST)
        return 0;
    wcscpy(to, start);
    wcscat(to, path);
    return length;
}

/* Put `name` behind the folder, in Windows' form. */
static const wchar_t *beneath(const char *name) {
    size_t at = folder_length;
    for (; *name != 0 && at < LONGEST - 1; name++)
        folder[at++] = *name == '/' ? L'\\' : (wchar_t)(unsigned char)*name;
    folder[at] = 0;
    return folder;
}

/* Open a file to read it. A virus scanner may have it alone for a moment, and Windows tells nobody
   when that has closed it. */
static HANDLE opened(const wchar_t *path) {
    for (int waited = 0;; waited += PAUSE) {
        HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
            OPEN_EXISTING, FILE_FLAG_SEQUENTIAL_SCAN, NULL);
        if (file != INVALID_HANDLE_VALUE || GetLastError() != ERROR_SHARING_VIOLATION
            || waited >= PATIENCE)
            return file;
        Sleep(PAUSE);
    }
}

static long load_file(const wchar_t *path, char *to, long most) {
    HANDLE file = opened(path);
    DWORD got = 0;
    if (file == INVALID_HANDLE_VALUE)
        return -1;
    BOOL read = ReadFile(file, to, most, &got, NULL);
    CloseHandle(file);
    return read ? (long)got : -1;
}

static long load(const char *name, char *to, long most) {
    return load_file(beneath(name), to, most);
}

static int sum_of(const char *name, long long size, uint64_t *result) {
    static unsigned char buffer[1 << 17];
    LARGE_INTEGER real;
    HANDLE file = opened(beneath(name));
    if (file == INVALID_HANDLE_VALUE)
        return 0;
    if (!GetFileSizeEx(file, &real) || real.QuadPart != size) {
        CloseHandle(file);
        return -1;
    }
    checksum sum;
    begin_checksum(&sum);
    size_t held = 0;
    while (size > 0) {
        DWORD got = 0, room = sizeof buffer - held;
        BOOL read = ReadFile(file, buffer + held, size < room ? (DWORD)size : room, &got, NULL);
        if (!read || got == 0) {
            CloseHandle(file);
            return read ? -1 : 0;
        }
        size -= got;
        held += got;
        add_blocks(&sum, buffer, held / 32);
        memmove(buffer, buffer + held / 32 * 32, held % 32);
        held %= 32;
    }
    CloseHandle(file);
    *result = end_checksum(&sum, buffer, held);
    return 1;
}

/* What Python runs. It takes this program for itself, but what starts another Python needs
   python.exe. Its modules are found in verbatim paths where the longest would have more than
   MAX_PATH characters. */
#define RUN(module) \
    L"import sys; home = sys.prefix; sys.executable = home + '\\\\python.exe'\n" \
    L"if len(home) > 128 and home[1] == ':':\n" \
    L"    sys.path = ['\\\\\\\\?\\\\' + path for path in sys.path]\n" \
    L"from boincvm.cli." module L" import main; sys.exit(main())"

#define LONGEST_HOME 240 /* characters; Python has MAX_PATH for the names that it looks for there */

/* Run `code` by the Python of the folder `home`, whose path is not verbatim and ends in a
   backslash, with the arguments that this process was given. */
static int run_python(const wchar_t *home, const wchar_t *code, int count, wchar_t **arguments) {
    wchar_t path[MAX_PATH], own[MAX_PATH];
    wcscat(wcscpy(path, home), L"python311.dll");
    wcscat(wcscpy(own, home), L"boincvm-wrapper.exe");
    HMODULE library = LoadLibraryExW(path, NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
    int (*run)(int, wchar_t **) = NULL;
    if (library != NULL)
        run = (int (*)(int, wchar_t **))(void *)GetProcAddress(library, "Py_Main");
    const wchar_t **all = calloc(count + 8, sizeof *all);
    if (run == NULL || all == NULL) {
        fprintf(stderr, "boincvm: Python cannot be loaded: Windows' error %lu\n", GetLastError());
        return HOST_ERROR;
    }
    const wchar_t *start[] = {own, L"-I", L"-S", L"-B", L"-c", code};
    int size = sizeof start / sizeof *start;
    memcpy(all, start, sizeof start);
    for (int number = 1; number < count; number++)
        all[size++] = arguments[number];
    return run(size, (wchar_t **)all);
}
