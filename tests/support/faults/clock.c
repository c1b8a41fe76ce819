/* A library that lets the real-time clock leap by LEAP seconds, there and back, at each so many looks at it: LEAP_EVERY.
   At the first leap it makes an empty file, LEAP_TOLD. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t leap(void) {
    static int looks, told;
    const char *every = getenv("LEAP_EVERY"), *by = getenv("LEAP"), *file = getenv("LEAP_TOLD");
    if (!every || !by || __atomic_fetch_add(&looks, 1, __ATOMIC_RELAXED) / atoi(every) % 2 == 0) return 0;
    if (file && !told) {
        told = 1;
        close(open(file, O_CREAT | O_WRONLY, 0666));
    }
    return atol(by);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += leap();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = (int)syscall(SYS_gettimeofday, now, zone);
    if (!failed) now->tv_sec += leap();
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
