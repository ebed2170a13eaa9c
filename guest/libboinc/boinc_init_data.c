/* See boinc_init_data.h. BOINC's own parser goes by tags, line by line, and so do those who write
 * the file: it need not be well-formed XML, so this looks for tags as well. Numbers are read
 * without strtod(), which goes by the application's locale. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "boinc_init_data.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error_numbers.h"

#define LARGEST_FILE (1 << 20)

enum kind { TEXT, INTEGER, REAL, FLAG, PERCENT };

struct field {
    const char *tag;
    enum kind kind;
    size_t offset;
    size_t size;
};

#define FIELD_OF(type, tag, kind, member)                                                          \
    { tag, kind, offsetof(type, member), sizeof(((type *)0)->member) }
#define FIELD(kind, member) FIELD_OF(APP_INIT_DATA, #member, kind, member)
#define HOST(kind, member) FIELD_OF(APP_INIT_DATA, #member, kind, host_info.member)
#define PREFERENCE(kind, member) FIELD_OF(APP_INIT_DATA, #member, kind, global_prefs.member)

static const struct field top_fields[] = {
    FIELD(INTEGER, major_version),
    FIELD(INTEGER, minor_version),
    FIELD(INTEGER, release),
    FIELD(INTEGER, app_version),
    FIELD(TEXT, app_name),
    FIELD(TEXT, plan_class),
    FIELD(TEXT, symstore),
    FIELD(TEXT, acct_mgr_url),
    FIELD(INTEGER, userid),
    FIELD(INTEGER, teamid),
    FIELD(INTEGER, hostid),
    FIELD(TEXT, user_name),
    FIELD(TEXT, team_name),
    FIELD(TEXT, project_dir),
    FIELD(TEXT, boinc_dir),
    FIELD(TEXT, wu_name),
    FIELD(TEXT, result_name),
    FIELD(TEXT, authenticator),
    FIELD(INTEGER, slot),
    FIELD(INTEGER, client_pid),
    FIELD(REAL, user_total_credit),
    FIELD(REAL, user_expavg_credit),
    FIELD(REAL, host_total_credit),
    FIELD(REAL, host_expavg_credit),
    FIELD(REAL, resource_share_fraction),
    FIELD(REAL, starting_elapsed_time),
    FIELD(FLAG, using_sandbox),
    FIELD(FLAG, vm_extensions_disabled),
    FIELD(REAL, rsc_fpops_est),
    FIELD(REAL, rsc_fpops_bound),
    FIELD(REAL, rsc_memory_bound),
    FIELD(REAL, rsc_disk_bound),
    FIELD(REAL, computation_deadline),
    FIELD(REAL, fraction_done_start),
    FIELD(REAL, fraction_done_end),
    FIELD(TEXT, gpu_type),
    FIELD(INTEGER, gpu_device_num),
    FIELD(INTEGER, gpu_opencl_dev_index),
    FIELD(REAL, gpu_usage),
    FIELD(REAL, ncpus),
    FIELD(FLAG, vbox_window),
    FIELD(FLAG, no_priority_change),
    FIELD(INTEGER, process_priority),
    FIELD(INTEGER, process_priority_special),
    FIELD(REAL, checkpoint_period),
    FIELD_OF(APP_INIT_DATA, "shm_key", INTEGER, shmem_seg_name),
    FIELD(REAL, wu_cpu_time),
};

static const struct field host_fields[] = {
    HOST(INTEGER, timezone), HOST(TEXT, domain_name), HOST(TEXT, ip_addr), HOST(TEXT, host_cpid),
    HOST(INTEGER, p_ncpus),  HOST(TEXT, p_vendor),    HOST(TEXT, p_model), HOST(TEXT, p_features),
    HOST(REAL, p_fpops),     HOST(REAL, p_iops),      HOST(REAL, p_membw), HOST(REAL, m_nbytes),
    HOST(REAL, m_cache),     HOST(REAL, m_swap),      HOST(REAL, d_total), HOST(REAL, d_free),
    HOST(TEXT, os_name),     HOST(TEXT, os_version),
    HOST(REAL, p_calculated), HOST(FLAG, p_vm_extensions_disabled),
    HOST(TEXT, product_name), HOST(TEXT, mac_address), HOST(TEXT, virtualbox_version),
};

static const struct field preference_fields[] = {
    PREFERENCE(REAL, mod_time),
    PREFERENCE(REAL, battery_charge_min_pct),
    PREFERENCE(REAL, battery_max_temperature),
    PREFERENCE(REAL, cpu_scheduling_period_minutes),
    PREFERENCE(REAL, cpu_usage_limit),
    PREFERENCE(REAL, daily_xfer_limit_mb),
    PREFERENCE(REAL, disk_interval),
    PREFERENCE(REAL, disk_max_used_gb),
    PREFERENCE(REAL, disk_max_used_pct),
    PREFERENCE(REAL, disk_min_free_gb),
    PREFERENCE(REAL, idle_time_to_run),
    PREFERENCE(REAL, max_bytes_sec_down),
    PREFERENCE(REAL, max_bytes_sec_up),
    PREFERENCE(REAL, max_ncpus_pct),
    PREFERENCE(REAL, niu_cpu_usage_limit),
    PREFERENCE(REAL, niu_max_ncpus_pct),
    PREFERENCE(REAL, niu_suspend_cpu_usage),
    PREFERENCE(REAL, ram_max_used_busy_frac),
    PREFERENCE(REAL, ram_max_used_idle_frac),
    PREFERENCE(REAL, suspend_cpu_usage),
    PREFERENCE(REAL, suspend_if_no_recent_input),
    PREFERENCE(REAL, work_buf_additional_days),
    PREFERENCE(REAL, work_buf_min_days),
    PREFERENCE(FLAG, confirm_before_connecting),
    PREFERENCE(FLAG, dont_verify_images),
    PREFERENCE(FLAG, hangup_if_dialed),
    PREFERENCE(FLAG, leave_apps_in_memory),
    PREFERENCE(FLAG, network_wifi_only),
    PREFERENCE(FLAG, run_gpu_if_user_active),
    PREFERENCE(FLAG, run_if_user_active),
    PREFERENCE(FLAG, run_on_batteries),
    PREFERENCE(FLAG, override_file_present),
    PREFERENCE(INTEGER, daily_xfer_period_days),
    PREFERENCE(TEXT, source_project),
    FIELD_OF(APP_INIT_DATA, "max_cpus", INTEGER, global_prefs.max_ncpus),
    FIELD_OF(APP_INIT_DATA, "start_hour", REAL, global_prefs.cpu_times.start_hour),
    FIELD_OF(APP_INIT_DATA, "end_hour", REAL, global_prefs.cpu_times.end_hour),
    FIELD_OF(APP_INIT_DATA, "net_start_hour", REAL, global_prefs.net_times.start_hour),
    FIELD_OF(APP_INIT_DATA, "net_end_hour", REAL, global_prefs.net_times.end_hour),
    FIELD_OF(APP_INIT_DATA, "vm_max_used_pct", PERCENT, global_prefs.vm_max_used_frac),
    FIELD_OF(APP_INIT_DATA, "ram_max_used_busy_pct", PERCENT, global_prefs.ram_max_used_busy_frac),
    FIELD_OF(APP_INIT_DATA, "ram_max_used_idle_pct", PERCENT, global_prefs.ram_max_used_idle_frac),
};

#define COUNT(fields) (sizeof(fields) / sizeof((fields)[0]))

const char *boincvm_element(const char *text, const char *tag, size_t *length) {
    size_t tag_length = strlen(tag);
    const char *place, *start = NULL, *end;
    for (place = text; start == NULL && (place = strchr(place, '<')) != NULL; place++) {
        if (strncmp(place + 1, tag, tag_length) == 0 && place[1 + tag_length] == '>') {
            start = place + tag_length + 2;
        }
    }
    for (end = start; end != NULL && (end = strchr(end, '<')) != NULL; end++) {
        if (end[1] == '/' && strncmp(end + 2, tag, tag_length) == 0 && end[2 + tag_length] == '>') {
            *length = (size_t)(end - start);
            return start;
        }
    }
    return NULL;
}

static double read_number(const char *text, const char *end) {
    double value = 0, scale = 1, sign = 1, base = 10;
    int exponent = 0, is_negative;
    while (text < end && (*text == ' ' || *text == '\t' || *text == '\n')) {
        text++;
    }
    if (text < end && (*text == '-' || *text == '+')) {
        sign = *text++ == '-' ? -1 : 1;
    }
    for (; text < end && *text >= '0' && *text <= '9'; text++) {
        value = value * 10 + (*text - '0');
    }
    if (text < end && *text == '.') {
        for (text++; text < end && *text >= '0' && *text <= '9'; text++) {
            value = value * 10 + (*text - '0');
            scale *= 10;
        }
    }
    if (text < end && (*text == 'e' || *text == 'E')) {
        text++;
        is_negative = text < end && *text == '-';
        text += text < end && (*text == '-' || *text == '+');
        for (; text < end && *text >= '0' && *text <= '9' && exponent < 400; text++) {
            exponent = exponent * 10 + (*text - '0');
        }
        for (; exponent > 0; exponent--) {
            *(is_negative ? &scale : &value) *= base;
        }
    }
    value = sign * value / scale;
    return value - value == 0 ? value : 0; /* neither infinite nor no number at all */
}

/* Without the entities that XML writes for its own characters. */
static void copy_text(char *to, size_t size, const char *from, size_t length) {
    static const char *const entities[] = {"&lt;<", "&gt;>", "&amp;&", "&quot;\"", "&apos;'"};
    size_t used = 0, index = 0, which;
    while (index < length && used + 1 < size) {
        char letter = from[index];
        size_t step = 1;
        for (which = 0; letter == '&' && which < COUNT(entities); which++) {
            size_t entity = strlen(entities[which]) - 1;
            if (length - index >= entity && strncmp(from + index, entities[which], entity) == 0) {
                letter = entities[which][entity];
                step = entity;
                break;
            }
        }
        to[used++] = letter;
        index += step;
    }
    to[used] = '\0';
}

static int whole_number(double value) {
    return value >= 2147483647.0 ? 2147483647 : value <= -2147483648.0 ? -2147483647 - 1 : (int)value;
}

static void read_field(const char *text, const struct field *field, void *data) {
    size_t length;
    const char *start = boincvm_element(text, field->tag, &length);
    char *place = (char *)data + field->offset;
    double number;
    if (start == NULL) {
        if (field->kind == FLAG) { /* <tag/> says yes, too */
            size_t tag_length = strlen(field->tag);
            for (; !*(bool *)place && (text = strchr(text, '<')) != NULL; text++) {
                *(bool *)place = strncmp(text + 1, field->tag, tag_length) == 0 &&
                                 strncmp(text + 1 + tag_length, "/>", 2) == 0;
            }
        }
        return;
    }
    if (field->kind == TEXT) {
        copy_text(place, field->size, start, length);
        return;
    }
    number = read_number(start, start + length);
    if (field->kind == INTEGER) {
        *(int *)place = whole_number(number);
    } else if (field->kind == REAL) {
        *(double *)place = number;
    } else if (field->kind == PERCENT) {
        *(double *)place = number / 100;
    } else {
        *(bool *)place = number != 0;
    }
}

/* Reads the fields in the section `tag`, and blanks it: outside, its tags mean other things. */
static void read_section(
    char *text, const char *tag, const struct field *fields, size_t count, void *data) {
    size_t length, index;
    char *section = (char *)boincvm_element(text, tag, &length);
    char after;
    if (section == NULL) {
        return;
    }
    after = section[length];
    section[length] = '\0';
    for (index = 0; index < count; index++) {
        read_field(section, &fields[index], data);
    }
    section[length] = after;
    memset(section, ' ', length);
}

/* The elements <app_file>: a block that holds the list and then the names. */
static int read_app_files(const char *content, APP_INIT_DATA *data) {
    size_t length, count = 0, room = 0, index = 0;
    const char *place;
    const char **names;
    char *text;
    for (place = content; (place = boincvm_element(place, "app_file", &length)) != NULL; count++) {
        place += length;
        room += length + 1;
    }
    names = (const char **)malloc(count * sizeof *names + room + 1);
    if (names == NULL) {
        return ERR_MALLOC;
    }
    text = (char *)(names + count);
    for (place = content; (place = boincvm_element(place, "app_file", &length)) != NULL;) {
        names[index++] = text;
        copy_text(text, length + 1, place, length);
        text += strlen(text) + 1;
        place += length;
    }
    data->app_files.names = names;
    data->app_files.count = count;
    return 0;
}

static int parse(char *text, APP_INIT_DATA *data) {
    size_t length, index;
    char *content = (char *)boincvm_element(text, "app_init_data", &length);
    const char *preferences;
    if (content == NULL) {
        return ERR_XML_PARSE;
    }
    content[length] = '\0';
    preferences = boincvm_element(content, "project_preferences", &length);
    if (preferences != NULL) {
        data->project_preferences = strndup(preferences, length);
        if (data->project_preferences == NULL) {
            return ERR_MALLOC;
        }
        read_section(content, "project_preferences", NULL, 0, data);
    }
    read_section(content, "host_info", host_fields, COUNT(host_fields), data);
    read_section(content, "proxy_info", NULL, 0, data);
    read_section(content, "global_preferences", preference_fields, COUNT(preference_fields), data);
    for (index = 0; index < COUNT(top_fields); index++) {
        read_field(content, &top_fields[index], data);
    }
    return read_app_files(content, data);
}

long boincvm_read_file(const char *path, char *text, size_t size) {
    struct stat status;
    size_t used = 0;
    ssize_t got = 1;
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        return -1;
    }
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(file);
        return -1;
    }
    while (used + 1 < size && got != 0) {
        got = read(file, text + used, size - 1 - used);
        if (got > 0) {
            used += (size_t)got;
        } else if (got < 0 && errno != EINTR) {
            close(file);
            return -1;
        }
    }
    close(file);
    text[used] = '\0';
    return (long)used;
}

int boincvm_read_init_data(const char *path, APP_INIT_DATA *data) {
    char *text;
    long length;
    int result;

    memset((void *)data, 0, sizeof *data);
    data->host_info.coprocs.n_rsc = 1;
    strcpy(data->host_info.coprocs.coprocs[0].type, "CPU");
    data->gpu_device_num = data->gpu_opencl_dev_index = -1;
    data->process_priority = data->process_priority_special = CONFIG_PRIORITY_UNSPECIFIED;
    data->fraction_done_end = 1;
    data->checkpoint_period = DEFAULT_CHECKPOINT_PERIOD;
    text = (char *)malloc(LARGEST_FILE + 2);
    if (text == NULL) {
        return ERR_MALLOC;
    }
    length = boincvm_read_file(path, text, LARGEST_FILE + 2);
    result = length < 0              ? ERR_FOPEN
             : length > LARGEST_FILE ? ERR_FILE_TOO_BIG
                                     : parse(text, data);
    free(text);
    if (!(data->checkpoint_period > 0)) {
        data->checkpoint_period = DEFAULT_CHECKPOINT_PERIOD;
    }
    return result;
}

void boincvm_free_init_data(APP_INIT_DATA *data) {
    free(data->project_preferences);
    free((void *)data->app_files.names);
    data->project_preferences = NULL;
    data->app_files.names = NULL;
    data->app_files.count = 0;
}
