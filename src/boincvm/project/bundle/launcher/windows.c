/* The programs of the folder on Windows: check the folder, then run its Python in this process. */

#include "windows_folder.h"

int wmain(int count, wchar_t **arguments) {
    static wchar_t own[LONGEST];
    DWORD length = GetModuleFileNameW(NULL, own, LONGEST);
    wchar_t *slash = length > 0 && length < LONGEST ? wcsrchr(own, L'\\') : NULL;
    if (slash == NULL || (folder_length = verbatim(own, folder)) == 0) {
        fprintf(stderr, "boincvm: its own file cannot be found\n");
        return HOST_ERROR;
    }
    folder_length -= wcslen(slash + 1);
    int is_command_line = _wcsicmp(slash + 1, L"boincvm.exe") == 0;
    slash[1] = 0;
    const wchar_t *home = wcsncmp(own, L"\\\\?\\", 4) == 0 && own[5] == L':' ? own + 4 : own;
    if (wcslen(home) > LONGEST_HOME) {
        fprintf(stderr, "boincvm: its folder's path is too long; move it to a shorter one\n");
        return HOST_ERROR;
    }
    const char *name, *what = fault(&name);
    if (what != NULL) {
        fprintf(stderr, TOLD, name, what);
        return HOST_ERROR;
    }
    const wchar_t *code = is_command_line ? RUN(L"main") : RUN(L"boinc_wrapper");
    return run_python(home, code, count, arguments);
}
