/* Every C function of the headers, once or more; C and C++. It ends with the number of checks that
 * failed, and names each. In an empty working directory. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "boinc_api.h"
#include "boinc_zip.h"
#include "config.h"
#include "coproc.h"
#include "diagnostics.h"
#include "gutil.h"
#include "graphics2.h"
#include "hostinfo.h"
#include "md5_file.h"
#include "prefs.h"
#include "proxy_info.h"
#include "shmem.h"
#include "std_fixes.h"
#include "str_util.h"
#include "util.h"

#include "check.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int ticks;
static void tick(void) { ticks++; }

static void write_file(const char *path, const char *content) {
    FILE *file = boinc_fopen(path, "wb");
    CHECK(file != NULL && fputs(content, file) >= 0 && fclose(file) == 0);
}

static int has_content(const char *path, const char *content) {
    char text[256];
    size_t length;
    FILE *file = boinc_fopen(path, "rb");
    if (file == NULL) return 0;
    length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    fclose(file);
    return strcmp(text, content) == 0;
}

static void check_times(void) {
    double start = dtime();
    BOINC_OPTIONS options;
    BOINC_STATUS status;
    char text[64];
    boinc_sleep(0.05);
    CHECK(dtime() - start >= 0.05 && dtime() - start < 20);
    CHECK(dday() <= start && dday() > start - SECONDS_PER_DAY);
    CHECK(drand() >= 0 && drand() <= 1 && boinc_is_finite(1.5));
    CHECK(!boinc_is_finite(1e308 * 10));
    CHECK(strstr(boinc_msg_prefix(text, sizeof text), "):") != NULL);
    CHECK(boinc_elapsed_time() >= 0 && boinc_worker_thread_cpu_time() >= 0);
    memset(&status, 1, sizeof status);
    CHECK(boinc_get_status(&status) == 0 && !status.suspended && !boinc_status.suspended);
    boinc_options_defaults(&options);
    CHECK(options.main_program && !options.multi_process);
    CHECK(start_timer_thread() == 0 && !boinc_disable_timer_thread);
    CHECK(boinc_init_options(&options) == 0 && boinc_init_parallel() == 0);
}

static void check_task(void) {
    APP_INIT_DATA data;
    char name[64], url[] = "http://localhost";
    double seconds = -1;
    write_file(
        INIT_DATA_FILE,
        "<app_init_data><slot>5</slot><app_file>a</app_file><app_file>b&amp;</app_file>"
        "<shm_key>-1</shm_key><global_preferences><ram_max_used_busy_pct>50.0</ram_max_used_busy_pct>"
        "<run_on_batteries>1</run_on_batteries><start_hour>8.5</start_hour></global_preferences>"
        "</app_init_data>");
    CHECK(boinc_parse_init_data_file() == 0 && boinc_get_init_data_p(&data) == 0);
    CHECK(data.slot == 5 && data.app_files.count == 2 && !strcmp(data.app_files.names[1], "b&"));
    CHECK(data.global_prefs.ram_max_used_busy_frac == 0.5 && data.global_prefs.run_on_batteries);
    CHECK(data.global_prefs.cpu_times.start_hour == 8.5 && data.shmem_seg_name == -1);
    CHECK(data.gpu_device_num == -1 && data.host_info.coprocs.n_rsc == 1);
    CHECK(boinc_wu_cpu_time_p(&seconds) == 0 && seconds >= 0);
    CHECK(boinc_is_standalone() == 1); /* nobody listens */
    write_file("link", "<soft_link>elsewhere</soft_link>");
    CHECK(boinc_resolve_filename("link", name, sizeof name) == 0 && !strcmp(name, "elsewhere"));
    CHECK(resolve_soft_link("link", name, sizeof name) == 0 && !strcmp(name, "elsewhere"));
    CHECK(boinc_fraction_done(0.25) == 0 && boinc_get_fraction_done() == 0.25);
    CHECK(boinc_report_app_status(1, 0, 0.5) == 0 && boinc_get_fraction_done() == 0.5);
    CHECK(boinc_report_app_status_aux(1, 0, 0.75, getpid(), 1, 2, 3) == 0);
    CHECK(boinc_get_fraction_done() == 0.75);
    CHECK(boinc_set_min_checkpoint_period(1000) == 0 && boinc_time_to_checkpoint() == 0);
    boinc_begin_critical_section();
    CHECK(boinc_checkpoint_completed() == 0 && boincvm_want_checkpoint() == 0);
    boinc_end_critical_section();
    boinc_ops_cumulative(1, 2);
    boinc_ops_per_cpu_sec(1, 2);
    boinc_set_credit_claim(3);
    CHECK(boinc_send_trickle_up("kind", "text") == 0);
    CHECK(boinc_receive_trickle_down(name, sizeof name) == 0);
    CHECK(boinc_upload_file_c("out") == 0 && boinc_upload_status_c("out") == ERR_NOT_FOUND);
    boinc_need_network();
    boinc_waiting_for_network(true);
    CHECK(boinc_network_poll() >= 0);
    boinc_network_done();
    CHECK(boinc_suspend_other_activities() == 0 && boinc_resume_other_activities() == 0);
    boinc_web_graphics_url(url);
    boinc_remote_desktop_addr(url);
}

static void check_once_a_second(void) {
    double start = dtime();
    BOINC_STATUS status;
    boinc_sporadic_set_ac_state(AC_DONT_WANT_COMPUTE);
    CHECK(boinc_sporadic_get_ca_state() == CA_COULD_COMPUTE);
    boinc_sporadic_set_ac_state(AC_WANT_COMPUTE);
    CHECK(boinc_sporadic_get_ca_state() == CA_COMPUTING);
    CHECK(boinc_get_status(&status) == 0 && status.ca_state == CA_COMPUTING);
    boinc_sporadic_set_ac_state(AC_NONE);
    CHECK(boinc_sporadic_dir("no/such/place") == ERR_FOPEN);
    CHECK(boinc_sporadic_dir(".") == 0 && has_content("ca", "2\n"));
    write_file("ac", "2\n");
    boinc_register_timer_callback(tick);
    while ((ticks < 1 || !has_content("ca", "3\n")) && dtime() < start + 50) boinc_sleep(0.02);
    CHECK(ticks >= 1 && has_content("ca", "3\n"));
    boinc_register_timer_callback(NULL);
}

static void check_files(void) {
    char path[MAXPATHLEN];
    double size;
    struct stat status;
    FILE *file;
    CHECK(boinc_mkdir("d") == 0 && boinc_make_dirs("d", "e/f/name") == 0);
    CHECK(is_dir("d/e/f") && is_dir_follow_symlinks("d/e/f") && !is_file("d"));
    CHECK(boinc_touch_file("d/new") == 0 && is_file("d/new") && is_file_follow_symlinks("d/new"));
    CHECK(symlink("new", "d/sym") == 0 && is_symlink("d/sym") && !is_file("d/sym"));
    CHECK(symlink("none", "d/dangling") == 0 && !boinc_file_exists("d/dangling"));
    CHECK(boinc_file_or_symlink_exists("d/dangling") && boinc_file_exists("d/sym"));
    write_file("d/new", "0123456789");
    CHECK(chmod("d/new", 0640) == 0 && boinc_copy("d/new", "d/copy") == 0);
    CHECK(has_content("d/copy", "0123456789") && boinc_truncate("d/copy", 4) == 0);
    CHECK(boinc_file_size_p("d/copy", &size) == 0 && size == 4);
    CHECK(boinc_copy_attributes("d/new", "d/copy") == 0);
    CHECK(stat("d/copy", &status) == 0 && (status.st_mode & 07777) == 0640);
    CHECK(boinc_chown("d/copy", getgid()) == 0);
    CHECK(boinc_rename("d/copy", "d/moved") == 0 && boinc_delete_file("d/moved") == 0);
    CHECK(boinc_delete_file("d/moved") == 0 && boinc_rmdir("d/e/f") == 0);
    CHECK(boinc_rmdir("d") == ERR_RMDIR && !strcmp(boinc_failed_file, "d"));
    boinc_getcwd(path);
    CHECK(path[0] == '/');
    relative_to_absolute("d/new", path);
    CHECK(path[0] == '/' && is_file(path));
    boinc_path_to_dir("a/b/c", path);
    CHECK(!strcmp(path, "a/b"));
    boinc_path_to_dir("c", path);
    CHECK(!strcmp(path, "."));
    file = boinc_temp_file("d", "prefix", path);
    CHECK(file != NULL && fclose(file) == 0 && !strncmp(path, "d/prefix", 8) && is_file(path));
}

static void check_texts(void) {
    char text[64] = "abcdef", *words[16], line[] = " one 'two words'  \"\" three\n";
    char *end;
    strcpy_overlap(text + 1, text + 2);
    CHECK(!strcmp(text, "acdef"));
    CHECK(parse_command_line(line, words) == 4 && words[4] == NULL);
    CHECK(!strcmp(words[1], "two words") && !strcmp(words[2], "") && !strcmp(words[3], "three"));
    CHECK(string_substitute("a-b-c", text, sizeof text, "-", "++") == 0);
    CHECK(!strcmp(text, "a++b++c"));
    CHECK(string_substitute("a-b-c", text, 4, "-", "++") == ERR_BUFFER_OVERFLOW);
    CHECK(!strcmp(text, "a++"));
    secs_to_hmsf(3725.5, text);
    CHECK(!strcmp(text, "1h02m05s50"));
    nbytes_to_string(1.5 * MEGA, 0, text, sizeof text);
    CHECK(!strcmp(text, "1.50 MB"));
    nbytes_to_string(512, 2 * KILO, text, sizeof text);
    CHECK(!strcmp(text, "0.50/2.00 KB"));
    CHECK(boincvm_strtod("1.5e2x", &end) == 150 && *end == 'x');
    CHECK(strlcpy(text, "long text", 5) == 9 && !strcmp(text, "long"));
    CHECK(strlcat(text, "er", sizeof text) == 6 && !strcmp(text, "longer"));
    CHECK(safe_strcpy(text, "x") == 1 && safe_strcat(text, "y") == 2 && !strcmp(text, "xy"));
    CHECK(!strcmp(boincerror(ERR_FOPEN), "BOINC error -108"));
    boinc_trace("%s", "");
    boinc_info("%s", "");
}

static void check_processes(void) {
    char path[MAXPATHLEN], *const words[] = {(char *)"sh", (char *)"-c", (char *)"exit 7", NULL};
    char *const sleeping[] = {(char *)"sleep", (char *)"1000", NULL};
    int pid, status = 0;
    CHECK(get_real_executable_path(path, sizeof path) == 0 && path[0] == '/');
    CHECK(get_real_executable_path(path, 3) == ERR_BUFFER_OVERFLOW);
    CHECK(boincvm_run_program(NULL, "sh", words, &pid) == 0);
    CHECK(boincvm_exit_status(pid, &status, -1) == 0 && WEXITSTATUS(status) == 7);
    CHECK(boincvm_run_program("d", "sleep", sleeping, &pid) == 0 && process_exists(pid));
    CHECK(boincvm_exit_status(pid, &status, 0.2) == ERR_NOT_FOUND);
    CHECK(kill_process(pid) == 0 && boincvm_exit_status(pid, &status, 30) == 0);
    CHECK(!process_exists(pid) && kill_process(pid) == 0 && linux_cpu_time(pid) == 0);
    CHECK(linux_cpu_time(getpid()) >= 0 && boincvm_thread_cpu_time() > 0);
}

static void check_memory(void) {
    const key_t key = 0x42000000 ^ (key_t)getpid();
    void *first, *second;
    double values[4];
    BOINC_STATUS status;
    CHECK(create_shmem_mmap("map", 5000, &first) == 0 && attach_shmem_mmap("map", &second) == 0);
    ((char *)first)[4999] = 'x';
    CHECK(((char *)second)[4999] == 'x');
    CHECK(detach_shmem_mmap(first, 5000) == 0 && detach_shmem_mmap(second, 5000) == 0);
    CHECK(attach_shmem_mmap("none", &first) == ERR_SHMAT && first == NULL);
    CHECK(create_shmem(key, 5000, 0, &first) == 0 && attach_shmem(key, &second) == 0);
    ((char *)first)[4999] = 'y';
    CHECK(((char *)second)[4999] == 'y' && shmem_info(key) == 0);
    CHECK(detach_shmem(first) == 0 && detach_shmem(second) == 0 && destroy_shmem(key) == 0);
    CHECK(attach_shmem(key, &first) == ERR_SHMGET && destroy_shmem(key) == 0);
    first = boinc_graphics_make_shmem("app", 100);
    second = boinc_graphics_get_shmem("app");
    CHECK(first != NULL && second != NULL && is_file("boinc_app_5"));
    CHECK(boinc_parse_graphics_status(values, values + 1, values + 2, values + 3, &status) == ERR_FOPEN);
    CHECK(boinc_write_graphics_status(1.5, 2.25, 0.125) == 0);
    CHECK(boinc_parse_graphics_status(values, values + 1, values + 2, values + 3, &status) == 0);
    CHECK(values[0] > 1e9 && values[1] == 1.5 && values[2] == 2.25 && values[3] == 0.125);
}

static void check_archives(void) {
    const char *files[] = {"d/new", "large", "noise", "nothing"};
    char *content = NULL, digest[MD5_LEN], again[MD5_LEN], long_text[300];
    double size;
    size_t length = 0;
    md5_state_t state;
    unsigned char binary[16];
    FILE *file = boinc_fopen("large", "wb");
    int i;
    for (i = 0; file != NULL && i < 100000; i++) fprintf(file, "line %d of the text\n", i % 977);
    CHECK(file != NULL && fclose(file) == 0);
    file = boinc_fopen("noise", "wb");
    for (i = 0; file != NULL && i < 70000; i++) putc(rand() >> 7 & 255, file);
    CHECK(file != NULL && fclose(file) == 0);
    write_file("nothing", "");
    CHECK(chmod("large", 0751) == 0);
    CHECK(boincvm_zip("all.zip", files, 4) == 0);
    CHECK(boinc_zip(ZIP_IT, "one.zip", "d/new") == 0);
    CHECK(boinc_zip(UNZIP_IT, "all.zip", "unpacked") == 0);
    for (i = 1; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "unpacked/%s", files[i]);
        CHECK(boincvm_md5_file(files[i], digest, &size, false) == 0);
        CHECK(boincvm_md5_file(path, again, &size, false) == 0 && !strcmp(digest, again));
    }
    CHECK(has_content("unpacked/new", "0123456789") && has_content("unpacked/nothing", ""));
    CHECK(boincvm_unzip_file("one.zip", "new", &content, &length) == 0 && length == 10);
    CHECK(content != NULL && !memcmp(content, "0123456789", 10));
    free(content);
    CHECK(boinc_zip(UNZIP_IT, "none.zip", NULL) == 2 && boinc_zip(UNZIP_IT, "large", NULL) == 2);
    CHECK(boincvm_md5_file("none", digest, &size, false) == ERR_FOPEN);
    CHECK(boincvm_md5_file("large", digest, &size, true) == ERR_BAD_FORMAT);
    CHECK(boincvm_md5_block((const unsigned char *)"ab", 2, digest, (const unsigned char *)"c", 1) == 0);
    CHECK(!strcmp(digest, "900150983cd24fb0d6963f7d28e17f72"));
    memset(long_text, 'a', sizeof long_text);
    for (i = 0; i < 300; i++) { /* against the whole at once, for each place of the padding */
        boincvm_md5_block((const unsigned char *)long_text, i, digest, NULL, 0);
        boincvm_md5_block(
            (const unsigned char *)long_text, i / 2, again, (const unsigned char *)long_text, i - i / 2);
        CHECK(!strcmp(digest, again));
    }
    md5_init(&state);
    md5_append(&state, (const unsigned char *)"abc", 3);
    md5_finish(&state, binary);
    CHECK(binary[0] == 0x90 && binary[15] == 0x72);
    CHECK(make_secure_random_string_os(digest) == 0 && make_secure_random_string_os(again) == 0);
    CHECK(strlen(digest) == 32 && strcmp(digest, again) != 0);
}

static void check_computer(void) {
    HOST_INFO host;
    memset((void *)&host, 0, sizeof host);
    boincvm_ask_system(&host);
    CHECK(host.p_ncpus >= 1 && host.m_nbytes > 1e6 && host.d_total > 1e6);
    CHECK(!strcmp(host.os_name, "Linux") && host.os_version[0] && host.p_model[0]);
    CHECK(!strcmp(proc_type_name(PROC_TYPE_INTEL_GPU), "Intel GPU"));
    CHECK(coproc_type_name_to_num(GPU_TYPE_ATI) == PROC_TYPE_AMD_GPU && coproc_type_name_to_num("x") == -1);
    CHECK(!strcmp(proc_type_name_xml(99), "unknown") && HAVE_UNISTD_H && NPROC_TYPES == 5);
    CHECK(boinc_init_diagnostics(BOINC_DIAG_DEFAULTS) == 0 && boinc_init_graphics_diagnostics(0) == 0);
    CHECK(boinc_install_signal_handlers() == 0 && diagnostics_init(0, "", "") == 0);
    CHECK(diagnostics_thread_init() == 0 && diagnostics_is_initialized() == 0);
    CHECK(diagnostics_is_flag_set(1) == 0 && diagnostics_cycle_logs() == 0);
    CHECK(diagnostics_set_thread_exempt_suspend() == 0 && diagnostics_finish() == 0);
    diagnostics_set_max_file_sizes(1, 1);
    set_signal_exit_code(1);
    CHECK(boinc_finish_diag() == 0);
    BOINCTRACE("%d", 1);
    BOINCINFO("%s", "");
}

int main(int argc, char **argv) {
    CHECK(boinc_init() == 0);
    if (argc > 1) {
        if (!strcmp(argv[1], "crash")) boinc_crash();
        if (!strcmp(argv[1], "message")) boinc_finish_message(4, "text", false);
        if (!strcmp(argv[1], "later")) boinc_temporary_exit(5, "reason", false);
    }
    check_times();
    check_task();
    check_once_a_second();
    check_files();
    check_texts();
    check_processes();
    check_memory();
    check_archives();
    check_computer();
    boinc_finish(failures);
    return 0;
}
