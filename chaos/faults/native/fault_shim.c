/* Does harm to PostgreSQL from inside its own processes, without root: preloaded (LD_PRELOAD), it stands
 * between the server and libc. What it does is said in a file that all its processes map; what it has done
 * is counted there, so that a fault proves itself. Harmless in every program that is not `postgres`.
 *
 *   disk full     what would make a file longer fails with ENOSPC; not below pg_wal, where PostgreSQL ends
 *                 itself, which is the fault process-kill
 *   slow disk     fsync and fdatasync return that much later
 *   clock skew    the wall clock is ahead or behind; the monotonic one is not touched
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The order of chaos/faults/shim.py. */
struct control {
    volatile int64_t is_disk_full, sync_delay_us, clock_offset_us;
    volatile int64_t writes_refused, syncs_delayed, clock_reads;
};

static struct control nothing;
static struct control *control = &nothing;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAULT_SHIM_CONTROL");
    if (path == NULL || strcmp(program_invocation_short_name, "postgres") != 0)
        return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        control = mapped;
}

static void count(volatile int64_t *counter) { __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED); }

#define REAL(name)                                       \
    static __typeof__(&name) real;                       \
    if (real == NULL)                                    \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* -- disk full ------------------------------------------------------------------------------------ */

static int is_refused(int file, off_t end)
{
    if (!control->is_disk_full)
        return 0;
    struct stat found;
    if (fstat(file, &found) != 0 || !S_ISREG(found.st_mode) || end <= found.st_size)
        return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    if (strstr(path, "/base/") == NULL)
        return 0;
    count(&control->writes_refused);
    errno = ENOSPC;
    return 1;
}

static size_t length_of(const struct iovec *pieces, int number)
{
    size_t length = 0;
    for (int at = 0; at < number; at++)
        length += pieces[at].iov_len;
    return length;
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset)
{
    REAL(pwrite);
    return is_refused(file, offset + (off_t)length) ? -1 : real(file, data, length, offset);
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset)
{
    REAL(pwrite64);
    return is_refused(file, offset + (off_t)length) ? -1 : real(file, data, length, offset);
}

ssize_t pwritev(int file, const struct iovec *pieces, int number, off_t offset)
{
    REAL(pwritev);
    return is_refused(file, offset + (off_t)length_of(pieces, number)) ? -1 : real(file, pieces, number, offset);
}

ssize_t pwritev64(int file, const struct iovec *pieces, int number, off64_t offset)
{
    REAL(pwritev64);
    return is_refused(file, offset + (off_t)length_of(pieces, number)) ? -1 : real(file, pieces, number, offset);
}

/* This one returns its error. */
int posix_fallocate(int file, off_t offset, off_t length)
{
    REAL(posix_fallocate);
    return is_refused(file, offset + length) ? ENOSPC : real(file, offset, length);
}

int posix_fallocate64(int file, off64_t offset, off64_t length)
{
    REAL(posix_fallocate64);
    return is_refused(file, offset + length) ? ENOSPC : real(file, offset, length);
}

/* -- slow disk ------------------------------------------------------------------------------------ */

static void delay(void)
{
    int64_t us = control->sync_delay_us;
    if (us <= 0)
        return;
    count(&control->syncs_delayed);
    struct timespec rest = {us / 1000000, us % 1000000 * 1000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR)
        ;
}

int fsync(int file)
{
    REAL(fsync);
    delay();
    return real(file);
}

int fdatasync(int file)
{
    REAL(fdatasync);
    delay();
    return real(file);
}

/* -- clock skew ----------------------------------------------------------------------------------- */

static int64_t offset_us(void)
{
    int64_t us = control->clock_offset_us;
    if (us != 0)
        count(&control->clock_reads);
    return us;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int status = real(clock, now);
    if (status == 0 && clock == CLOCK_REALTIME) {
        int64_t ns = now->tv_nsec + offset_us() % 1000000 * 1000;
        now->tv_sec += control->clock_offset_us / 1000000 + (ns < 0 ? -1 : ns / 1000000000);
        now->tv_nsec = ns < 0 ? ns + 1000000000 : ns % 1000000000;
    }
    return status;
}

int gettimeofday(struct timeval *now, void *zone)
{
    (void)zone;
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise) != 0)
        return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (out != NULL)
        *out = precise.tv_sec;
    return precise.tv_sec;
}
