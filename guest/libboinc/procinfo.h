/* The processes of the system, with the names of BOINC's lib/procinfo.h. C++ only. See
 * boinc_api.h. */
#ifndef BOINCVM_PROCINFO_H
#define BOINCVM_PROCINFO_H

#include <dirent.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "error_numbers.h"
#include "str_replace.h"

/* Times in seconds, sizes in bytes. */
struct PROCINFO {
    int id;
    int parentid;
    double swap_usage; /* always 0 */
    double virtual_size;
    double rss;
    double rss_smoothed;
    double user_time;
    double kernel_time;
    bool is_boinc_app;
    bool is_low_priority; /* a nice value of 10 or more */
    char command[256];
    bool scanned;
    std::vector<int> children;

    PROCINFO() : rss_smoothed(0) { clear(); }
    void clear() { /* but for rss_smoothed */
        id = parentid = 0;
        swap_usage = virtual_size = rss = user_time = kernel_time = 0;
        is_boinc_app = is_low_priority = scanned = false;
        command[0] = '\0';
        children.clear();
    }
};

typedef std::map<int, PROCINFO> PROC_MAP;

/* Fills in the lists of children. */
inline void find_children(PROC_MAP &processes) {
    for (auto &entry : processes) {
        auto parent = processes.find(entry.second.parentid);
        if (parent != processes.end() && parent->first != entry.first) {
            parent->second.children.push_back(entry.first);
        }
    }
}

/* One process, from /proc; false if it is gone. Not BOINC's. */
inline bool boincvm_read_process(int id, PROCINFO &process) {
    char path[64], text[4096];
    std::snprintf(path, sizeof path, "/proc/%d/stat", id);
    FILE *file = std::fopen(path, "re");
    size_t length = file ? std::fread(text, 1, sizeof text - 1, file) : 0;
    if (file) {
        std::fclose(file);
    }
    text[length] = '\0';
    /* The name stands in parentheses and may hold anything, further ones too. */
    char *name = std::strchr(text, '('), *end = std::strrchr(text, ')');
    unsigned long user, kernel, size;
    long nice, pages;
    if (!name || !end ||
        std::sscanf(
            end + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %ld %*d %*d %*u %lu %ld",
            &process.parentid, &user, &kernel, &nice, &size, &pages) != 6) {
        return false;
    }
    double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    *end = '\0';
    process.id = id;
    process.user_time = static_cast<double>(user) / ticks;
    process.kernel_time = static_cast<double>(kernel) / ticks;
    process.virtual_size = static_cast<double>(size);
    process.rss = static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE));
    process.is_low_priority = nice >= 10;
    strlcpy(process.command, name + 1, sizeof process.command);
    return true;
}

/* All processes. 0, or ERR_OPENDIR. */
inline int procinfo_setup(PROC_MAP &processes) {
    DIR *directory = opendir("/proc");
    if (!directory) {
        return ERR_OPENDIR;
    }
    processes.clear();
    while (dirent *entry = readdir(directory)) {
        PROCINFO process;
        int id = std::atoi(entry->d_name);
        if (id > 0 && boincvm_read_process(id, process)) {
            processes[id] = process;
        }
    }
    closedir(directory);
    find_children(processes);
    return 0;
}

/* Adds `id` and all that descend from it to `total`, each once. Not BOINC's. */
inline void boincvm_add_tree(PROC_MAP &processes, int id, PROCINFO &total) {
    auto found = processes.find(id);
    if (found == processes.end() || found->second.scanned) {
        return;
    }
    PROCINFO &process = found->second;
    process.scanned = process.is_boinc_app = true;
    total.user_time += process.user_time;
    total.kernel_time += process.kernel_time;
    total.virtual_size += process.virtual_size;
    total.rss += process.rss;
    for (int child : process.children) {
        boincvm_add_tree(processes, child, total);
    }
}

/* The sums of an application: the process total.id, `others`, and what descends from them. */
inline void procinfo_app(PROCINFO &total, std::vector<int> *others, PROC_MAP &processes, char *) {
    int id = total.id;
    total.clear();
    total.id = id;
    boincvm_add_tree(processes, id, total);
    for (size_t index = 0; others && index < others->size(); index++) {
        boincvm_add_tree(processes, (*others)[index], total);
    }
}

/* The sums of all others, after procinfo_app() of each application. */
inline void procinfo_non_boinc(PROCINFO &total, PROC_MAP &processes) {
    total.clear();
    for (auto &entry : processes) {
        if (!entry.second.is_boinc_app && !entry.second.is_low_priority) {
            total.user_time += entry.second.user_time;
            total.kernel_time += entry.second.kernel_time;
            total.virtual_size += entry.second.virtual_size;
            total.rss += entry.second.rss;
        }
    }
}

inline double process_tree_cpu_time(int id) {
    PROC_MAP processes;
    PROCINFO total;
    procinfo_setup(processes);
    boincvm_add_tree(processes, id, total);
    return total.user_time + total.kernel_time;
}

/* Of the whole system, in user mode. */
inline double total_cpu_time() {
    unsigned long user = 0, nice = 0;
    FILE *file = std::fopen("/proc/stat", "re");
    if (file) {
        if (std::fscanf(file, "cpu %lu %lu", &user, &nice) != 2) {
            user = nice = 0;
        }
        std::fclose(file);
    }
    return static_cast<double>(user + nice) / static_cast<double>(sysconf(_SC_CLK_TCK));
}
#endif
