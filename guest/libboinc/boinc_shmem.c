/* See shmem.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "shmem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error_numbers.h"

static int map(int file, size_t size, void **memory) {
    *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (*memory == MAP_FAILED) {
        *memory = NULL;
        return ERR_MMAP;
    }
    return 0;
}

int create_shmem_mmap(const char *path, size_t size, void **memory) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
    *memory = NULL;
    if (file < 0) {
        return ERR_SHMGET;
    }
    if (ftruncate(file, (off_t)size) != 0) {
        close(file);
        return ERR_SHMGET;
    }
    return map(file, size, memory);
}

int attach_shmem_mmap(const char *path, void **memory) {
    struct stat status;
    int file = open(path, O_RDWR | O_CLOEXEC);
    *memory = NULL;
    if (file < 0) {
        return ERR_SHMAT;
    }
    if (fstat(file, &status) != 0 || status.st_size == 0) {
        close(file);
        return ERR_SHMAT;
    }
    return map(file, (size_t)status.st_size, memory);
}

int detach_shmem_mmap(void *memory, size_t size) { return munmap(memory, size) == 0 ? 0 : ERR_SHMAT; }

static int attach(int segment, void **memory) {
    *memory = shmat(segment, NULL, 0);
    if (*memory == (void *)-1) {
        *memory = NULL;
        return ERR_SHMAT;
    }
    return 0;
}

int create_shmem(key_t key, int size, gid_t gid, void **memory) {
    struct shmid_ds status;
    int segment = shmget(key, (size_t)size, IPC_CREAT | 0660);
    *memory = NULL;
    if (segment < 0) {
        return ERR_SHMGET;
    }
    if (gid != 0) {
        if (shmctl(segment, IPC_STAT, &status) != 0) {
            return ERR_SHMCTL;
        }
        status.shm_perm.gid = gid;
        if (shmctl(segment, IPC_SET, &status) != 0) {
            return ERR_SHMCTL;
        }
    }
    return attach(segment, memory);
}

int attach_shmem(key_t key, void **memory) {
    int segment = shmget(key, 0, 0);
    *memory = NULL;
    return segment < 0 ? ERR_SHMGET : attach(segment, memory);
}

int detach_shmem(void *memory) { return shmdt(memory) == 0 ? 0 : ERR_SHMAT; }

int shmem_info(key_t key) {
    struct shmid_ds status;
    int segment = shmget(key, 0, 0);
    if (segment < 0) {
        return ERR_SHMGET;
    }
    if (shmctl(segment, IPC_STAT, &status) != 0) {
        return ERR_SHMCTL;
    }
    fprintf(
        stderr, "shared memory, key %x: segment %d, size %lu, attached %lu times\n", (unsigned)key,
        segment, (unsigned long)status.shm_segsz, (unsigned long)status.shm_nattch);
    return 0;
}

int destroy_shmem(key_t key) {
    int segment = shmget(key, 0, 0);
    if (segment < 0) {
        return errno == ENOENT ? 0 : ERR_SHMGET;
    }
    return shmctl(segment, IPC_RMID, NULL) == 0 ? 0 : ERR_SHMCTL;
}
