/* The programs of the folder on Windows: check the folder, then run its Python in this process. */

#include <wchar.h>
#include <windows.h>

#include "manifest.h"

#define LONGEST 32768

static wchar_t folder[LONGEST];
static size_t folder_length; /* with the last backslash */

/* Put `name` behind the folder, in Windows' form. */
static const wchar_t *beneath(const char *name) {
    size_t at = folder_length;
    for (; *name != 0 && at < LONGEST - 1; name++)
        folder[at++] = *name == '/' ? L'\\' : (wchar_t)(unsigned char)*name;
    folder[at] = 0;
    return folder;
}

static HANDLE opened(const char *name) {
    return CreateFileW(beneath(name), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
        OPEN_EXISTING, FILE_FLAG_SEQUENTIAL_SCAN, NULL);
}

static long load(const char *name, char *to, long most) {
    HANDLE file = opened(name);
    DWORD got = 0;
    if (file == INVALID_HANDLE_VALUE)
        return -1;
    BOOL read = ReadFile(file, to, most, &got, NULL);
    CloseHandle(file);
    return read ? (long)got : -1;
}

static int sum_of(const char *name, long long size, uint64_t *result) {
    static unsigned char buffer[1 << 17];
    LARGE_INTEGER real;
    HANDLE file = opened(name);
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

/* Python takes this program for itself, but what starts another Python needs python.exe. */
#define RUN(module) \
    L"import sys; sys.executable = sys.prefix + '\\\\python.exe'; from boincvm.cli." module \
    L" import main; sys.exit(main())"

int wmain(int count, wchar_t **arguments) {
    static wchar_t own[LONGEST];
    DWORD length = GetModuleFileNameW(NULL, own, LONGEST);
    wchar_t *slash = length > 0 && length < LONGEST ? wcsrchr(own, L'\\') : NULL;
    if (slash == NULL) {
        fprintf(stderr, "boincvm: its own file cannot be found\n");
        return HOST_ERROR;
    }
    folder_length = slash + 1 - own;
    wmemcpy(folder, own, folder_length);
    const char *name, *what = fault(&name);
    if (what != NULL) {
        fprintf(stderr, TOLD, name, what);
        return HOST_ERROR;
    }
    HMODULE library = LoadLibraryExW(beneath("python311.dll"), NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
    int (*run)(int, wchar_t **) =
        library == NULL ? NULL : (int (*)(int, wchar_t **))(void *)GetProcAddress(library, "Py_Main");
    wchar_t **all = calloc(count + 8, sizeof *all);
    if (run == NULL || all == NULL) {
        fprintf(stderr, "boincvm: Python cannot be loaded: Windows' error %lu\n", GetLastError());
        return HOST_ERROR;
    }
    int is_command_line = _wcsicmp(slash + 1, L"boincvm.exe") == 0;
    wchar_t *start[] = {own, L"-I", L"-S", L"-B", L"-c",
        is_command_line ? RUN(L"main") : RUN(L"boinc_wrapper")};
    int size = sizeof start / sizeof *start;
    memcpy(all, start, sizeof start);
    for (int number = 1; number < count; number++)
        all[size++] = arguments[number];
    return run(size, all);
}
