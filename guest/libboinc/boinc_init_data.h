/* Reading init_data.xml and soft links. Internal; see boinc_api.h. */
#ifndef BOINCVM_INIT_DATA_H
#define BOINCVM_INIT_DATA_H

#include <stddef.h>

#include "app_ipc.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills `data` with what the file says; 0, ERR_FOPEN, ERR_MALLOC, ERR_FILE_TOO_BIG or
 * ERR_XML_PARSE. Whatever happens `data` is valid, until boincvm_free_init_data(). */
int boincvm_read_init_data(const char *path, APP_INIT_DATA *data);
void boincvm_free_init_data(APP_INIT_DATA *data);

/* The number of the task's slot. */
int boincvm_slot(void);

/* Up to `size` - 1 bytes of a regular file, and a NUL; their count, or -1. */
long boincvm_read_file(const char *path, char *text, size_t size);

/* What stands between <tag> and </tag>: where it begins, its length in `length`; or null. */
const char *boincvm_element(const char *text, const char *tag, size_t *length);

#ifdef __cplusplus
}
#endif
#endif
