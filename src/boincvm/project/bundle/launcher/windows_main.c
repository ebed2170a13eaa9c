/* The main program of an app version on Windows: unpack the folder once, then become its wrapper.

   The client starts it in the slot, where boincvm.cab is a link to the packed folder NAME.cab in
   the project's directory. Beside that one there are

       NAME            the folder, which is as its manifest says
       NAME.lock       locked while the folder is checked or replaced
       NAME.new        what is being unpacked, or was when its task was killed
       NAME.damaged    what is being replaced

   Python is run in this process, so the client has the wrapper's. Where the folder cannot be
   unpacked, the task does not fail: the client shows a notice, and starts it again later. */

#include "windows_unpack.h"

#define JOB_FILE 211 /* exit_codes.py */

#define LINK "boincvm.cab"
#define SUFFIX ".cab"
#define PROJECTS "../../projects/" /* where each link of a client leads */
#define MOST_LINK 511 /* bytes: a link is one line */
#define MOST_INIT_DATA (4 << 20)
#define LATER 3600 /* seconds */

#define NOT_UNPACKED "boincvm cannot be unpacked: "
#define NO_ROOM NOT_UNPACKED "free some disk space"
#define NO_PATH NOT_UNPACKED "the path of BOINC's data directory is too long"
#define DAMAGED \
    NOT_UNPACKED "its archive is missing or damaged; reset the project, to download it again"
#define ALTERED \
    NOT_UNPACKED "a file of it is missing or was altered; does a virus scanner keep it away?"
#define IN_USE \
    "boincvm's folder is damaged, and can only be replaced when no other task of it runs"

/* Ask the client for a restart in an hour, with a notice. Return the exit code for that. */
static int postpone(const char *reason) {
    fprintf(stderr, "%s\n", reason);
    FILE *file = fopen("boinc_temporary_exit", "wb");
    if (file == NULL)
        return HOST_ERROR;
    int printed = fprintf(file, "%d\n%s\nnotice\n", LATER, reason);
    return fclose(file) == 0 && printed > 0 ? 0 : HOST_ERROR;
}

static int postpone_for(DWORD error) {
    char reason[128];
    if (error == ERROR_DISK_FULL || error == ERROR_HANDLE_DISK_FULL)
        return postpone(NO_ROOM);
    snprintf(reason, sizeof reason, NOT_UNPACKED "Windows' error %lu", error);
    return postpone(reason);
}

/* Return what is between the first `opening` and the next `closing`, which is ended by a 0; or
   NULL. */
static char *between(char *text, const char *opening, const char *closing) {
    char *begin = strstr(text, opening);
    if (begin == NULL)
        return NULL;
    begin += strlen(opening);
    char *end = strstr(begin, closing);
    if (end == NULL)
        return NULL;
    *end = 0;
    return begin;
}

/* Tell whether the client says that `name` is a file of the app version, whose signature it has
   checked. Old clients name none of those, and without a client there is no init_data.xml. */
static int is_signed(const char *name) {
    static char text[MOST_INIT_DATA + 1];
    long length = load_file(L"init_data.xml", text, MOST_INIT_DATA);
    if (length < 0)
        return GetLastError() == ERROR_FILE_NOT_FOUND;
    text[length] = 0;
    if (length == MOST_INIT_DATA)
        return 0;
    /* What the project's web pages have put there is nothing that the client says. */
    char *preferences = strstr(text, "<project_preferences>");
    char *end = preferences == NULL ? NULL : strstr(preferences, "</project_preferences>");
    if (end != NULL)
        memset(preferences, ' ', end - preferences);
    char *next = strstr(text, "<app_file>");
    if (next == NULL)
        return 1;
    for (char *file; (file = between(next, "<app_file>", "</app_file>")) != NULL;) {
        if (strcmp(file, name) == 0)
            return 1;
        next = file + strlen(file) + 1;
    }
    return 0;
}

/* Return the file's name in the target of a link, if that is the packed folder in the project's
   directory; or NULL. */
static const char *archive_name(const char *target) {
    const char *project = target + strlen(PROJECTS);
    if (strncmp(target, PROJECTS, strlen(PROJECTS)) != 0 || strpbrk(target, "\\:") != NULL)
        return NULL;
    const char *name = strchr(project, '/');
    if (name == NULL || *project == '.' || *++name == '.' || strchr(name, '/') != NULL)
        return NULL;
    size_t size = strlen(name);
    int is_archive = size > strlen(SUFFIX) && strcmp(name + size - strlen(SUFFIX), SUFFIX) == 0;
    return is_archive ? name : NULL;
}

/* Write the path of the packed folder, to which the slot's link leads, to `path`, and return its
   length; 0 if there is no such link, which is the project's fault. */
static size_t find_archive(wchar_t path[LONGEST]) {
    static char text[MOST_LINK + 1];
    static wchar_t wide[MOST_LINK + 1];
    long length = load_file(L"" LINK, text, MOST_LINK);
    text[length < 0 ? 0 : length] = 0;
    const char *target = between(text, "<soft_link>", "</soft_link>");
    const char *name = target == NULL ? NULL : archive_name(target);
    if (name == NULL) {
        fprintf(stderr, "boincvm: the slot has no link " LINK " to a file of the project whose name"
            " ends in " SUFFIX "; the app version needs one, without <copy_file/>\n");
        return 0;
    }
    if (!is_signed(name)) {
        fprintf(stderr,
            "boincvm: " LINK " is not a file of the app version, so it is not signed\n");
        return 0;
    }
    if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, target, -1, wide, MOST_LINK + 1)
        && !MultiByteToWideChar(CP_ACP, 0, target, -1, wide, MOST_LINK + 1))
        return 0;
    DWORD path_length = GetFullPathNameW(wide, LONGEST, path, NULL);
    return path_length < LONGEST ? path_length : 0;
}

/* Remove a file or a directory with all that is in it; links are removed and not followed. `path`
   is LONGEST long, and the same afterwards. Return whether nothing is left. */
static BOOL remove_all(wchar_t *path) {
    DWORD attributes = GetFileAttributesW(path);
    if (attributes == INVALID_FILE_ATTRIBUTES)
        return GetLastError() == ERROR_FILE_NOT_FOUND;
    if (attributes & FILE_ATTRIBUTE_READONLY)
        SetFileAttributesW(path, FILE_ATTRIBUTE_NORMAL);
    if (!(attributes & FILE_ATTRIBUTE_DIRECTORY))
        return DeleteFileW(path);
    size_t length = wcslen(path);
    if (!(attributes & FILE_ATTRIBUTE_REPARSE_POINT) && length + 2 < LONGEST) {
        WIN32_FIND_DATAW entry;
        wcscpy(path + length, L"\\*");
        HANDLE entries = FindFirstFileW(path, &entry);
        BOOL found = entries != INVALID_HANDLE_VALUE;
        for (; found; found = FindNextFileW(entries, &entry)) {
            size_t room = LONGEST - length - 1;
            if (wcscmp(entry.cFileName, L".") == 0 || wcscmp(entry.cFileName, L"..") == 0
                || wcslen(entry.cFileName) >= room)
                continue;
            wcscpy(path + length + 1, entry.cFileName);
            remove_all(path);
        }
        if (entries != INVALID_HANDLE_VALUE)
            FindClose(entries);
        path[length] = 0;
    }
    return RemoveDirectoryW(path);
}

/* Rename a directory, which takes until no virus scanner has a file in it open. */
static BOOL rename_directory(const wchar_t *from, const wchar_t *to) {
    for (int waited = 0; !MoveFileExW(from, to, 0); waited += PAUSE) {
        DWORD error = GetLastError();
        if ((error != ERROR_ACCESS_DENIED && error != ERROR_SHARING_VIOLATION)
            || waited >= PATIENCE)
            return FALSE;
        Sleep(PAUSE);
    }
    return TRUE;
}

static void set_folder(const wchar_t *path) {
    wcscpy(folder, path);
    wcscat(folder, L"\\");
    folder_length = wcslen(folder);
}

/* Unpack `archive` as the folder `path`, in place of what is there. `made` and `damaged`: where it
   is made, and where the former one goes. Return 1, or 0 with the exit code in `*code`. */
static int replace_folder(const wchar_t *archive, const wchar_t *path, wchar_t *made,
    wchar_t *damaged, int *code) {
    const char *name, *what = NULL;
    if (!CreateDirectoryW(made, NULL))
        return *code = postpone_for(GetLastError()), 0;
    int done = unpack(archive, made);
    set_folder(made);
    if (!done || (what = fault(&name)) != NULL) {
        if (what != NULL)
            fprintf(stderr, "boincvm: %.*s %s\n", LONGEST_NAME, name, what);
        remove_all(made);
        *code = unpacking.error != 0 ? postpone_for(unpacking.error)
            : postpone(what == NULL ? DAMAGED : ALTERED);
        return 0;
    }
    if (GetFileAttributesW(path) != INVALID_FILE_ATTRIBUTES && !rename_directory(path, damaged))
        return *code = postpone(IN_USE), 0;
    if (!rename_directory(made, path))
        return *code = postpone_for(GetLastError()), 0;
    remove_all(damaged); /* what is left, the next task removes */
    fprintf(stderr, "boincvm was unpacked\n");
    return 1;
}

static wchar_t *with_suffix(const wchar_t *path, const wchar_t *suffix) {
    wchar_t *all = malloc(LONGEST * sizeof *all);
    if (all == NULL)
        abort();
    return wcscat(wcscpy(all, path), suffix);
}

int wmain(int count, wchar_t **arguments) {
    static wchar_t home[LONGEST], path[LONGEST];
    size_t length = find_archive(home);
    if (length == 0)
        return JOB_FILE;
    home[length -= strlen(SUFFIX)] = 0;
    if (length >= LONGEST_HOME)
        return postpone(NO_PATH);
    verbatim(home, path);
    wchar_t *archive = with_suffix(path, L"" SUFFIX), *made = with_suffix(path, L".new");
    wchar_t *damaged = with_suffix(path, L".damaged"), *lock_name = with_suffix(path, L".lock");
    HANDLE lock = CreateFileW(lock_name, GENERIC_READ | GENERIC_WRITE,
        FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_ALWAYS,
        FILE_ATTRIBUTE_NORMAL, NULL);
    OVERLAPPED begin = {0};
    if (lock == INVALID_HANDLE_VALUE
        || !LockFileEx(lock, LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &begin))
        return postpone_for(GetLastError());
    remove_all(made); /* left by a task that was killed here */
    remove_all(damaged);
    set_folder(path);
    const char *name;
    int code = 0;
    int is_whole = fault(&name) == NULL || replace_folder(archive, path, made, damaged, &code);
    CloseHandle(lock); /* and with it goes the lock */
    if (!is_whole)
        return code;
    return run_python(wcscat(home, L"\\"), RUN(L"boinc_wrapper"), count, arguments);
}
