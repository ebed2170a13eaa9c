/* Memory that processes share, with the names of BOINC's lib/shmem.h. The functions return 0, or a
 * number of error_numbers.h. See boinc_api.h. */
#ifndef BOINCVM_SHMEM_H
#define BOINCVM_SHMEM_H

#include <sys/shm.h>
#include <sys/types.h>

#define MMAPPED_FILE_NAME "boinc_mmap_file"

#ifdef __cplusplus
extern "C" {
#endif

/* A file. A new one has `size` zeros; attaching maps the whole of it. */
extern int create_shmem_mmap(const char *path, size_t size, void **memory);
extern int attach_shmem_mmap(const char *path, void **memory);
extern int detach_shmem_mmap(void *memory, size_t size);

/* System V. A `gid` that is not 0 becomes the segment's group. shmem_info prints a line. */
extern int create_shmem(key_t key, int size, gid_t gid, void **memory);
extern int attach_shmem(key_t key, void **memory);
extern int detach_shmem(void *memory);
extern int shmem_info(key_t key);
extern int destroy_shmem(key_t key);

#ifdef __cplusplus
}
#endif
#endif
