/* SPDX-License-Identifier: MIT */
/*
 * test_turn.c - a turn word between real processes: never two owners, and whoever dies, at any step of taking and giving
 * back, stops nobody. The file here has a word, a table, and two counters that are equal whenever nobody has the turn.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "base/step.h"
#include "format/turn.h"
#include "temporary.h"

#define SLOTS 8u
#define WRITERS 4
#define KILLS 150
#define LONG_NS UINT64_C(20000000000)

/* In the file, and mapped. */
typedef struct shared {
    uint32_t word;
    uint32_t incarnations;
    uint8_t table[SLOTS * CHRON__TURN_ENTRY] __attribute__((aligned(8)));
    volatile uint64_t first;  /* changed first in a turn, */
    volatile uint64_t second; /* and last: they differ if somebody died in between */
    volatile uint64_t repairs;
    volatile uint64_t inside; /* pid of who is in the turn */
} shared;

typedef struct one {
    chron__members m;
    chron__lock lock;
    shared *s;
} one;

static char path[TEMPORARY_BYTES];
static const chron__io *const io = &chron__io_posix;

static uint8_t *word_of(const one *o)
{
    return (uint8_t *)&o->s->word;
}

static void make_file(void)
{
    int fd;

    temporary_directory(path);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, (off_t)sizeof(shared)), 0);
    CHECK_EQ(close(fd), 0);
}

static void look(one *o)
{
    memset(o, 0, sizeof *o);
    o->m.io = io;
    o->m.fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(o->m.fd >= 0);
    o->s = mmap(NULL, sizeof *o->s, PROT_READ | PROT_WRITE, MAP_SHARED, o->m.fd, 0);
    CHECK(o->s != MAP_FAILED);
    o->m.slots = SLOTS;
    o->m.table = o->s->table;
    o->m.next_incarnation = (uint8_t *)&o->s->incarnations;
}

static void repair(one *o)
{
    o->s->second = o->s->first;
    o->s->repairs++;
    o->s->inside = 0;
}

static void join(one *o)
{
    int fd;

    look(o);
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(chron__turn_join(&o->m, fd), 0);
    CHECK_EQ(io->hold(io, fd, o->m.fd, &o->lock), 0);
    if (chron__turn_inherit(&o->m, word_of(o))) {
        repair(o);
        chron__turn_give(word_of(o));
    }
}

static void leave(one *o)
{
    io->unlock(io, &o->lock);
    CHECK_EQ(munmap(o->s, sizeof *o->s), 0);
    CHECK_EQ(close(o->m.fd), 0);
}

/* One turn, which changes both counters. */
static void work(one *o)
{
    uint32_t owner = 0;
    int how = chron__turn_take(&o->m, word_of(o), LONG_NS, &owner);

    CHECK(how >= 0);
    if (how == CHRON__TURN_INHERITED)
        repair(o);
    CHRON__STEP("test: in the turn");
    CHECK_EQ(o->s->inside, 0);
    CHECK_EQ(o->s->first, o->s->second);
    o->s->inside = (uint64_t)getpid();
    o->s->first++;
    CHRON__STEP("test: half done");
    o->s->second++;
    o->s->inside = 0;
    CHRON__STEP("test: done");
    chron__turn_give(word_of(o));
    CHRON__STEP("test: given back");
}

/* ------------------------------------------------------------------------------------------ children */

static const char *die_where;
static const char *wait_where; /* says so in the pipe, and stops */
static int said;

static void at_step(const char *name)
{
    if (die_where && strcmp(name, die_where) == 0)
        (void)kill(getpid(), SIGKILL);
    if (wait_where && strcmp(name, wait_where) == 0) {
        CHECK_EQ(write(said, "!", 1), 1);
        wait_where = NULL;
        (void)raise(SIGSTOP);
    }
}

/* A child that joins and works until it is killed. */
static pid_t start(int turns)
{
    pid_t pid = fork();
    one o;

    if (pid != 0)
        return pid;
    CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGKILL), 0); /* a test that fails leaves nobody behind */
    chron__on_step = at_step;
    join(&o);
    for (int i = 0; turns < 0 || i < turns; i++)
        work(&o);
    leave(&o);
    _exit(0);
}

/* One that stops at a step, and says so in the pipe. */
static pid_t start_to_stop(const char *step, int *told)
{
    int pipes[2];
    pid_t pid;

    CHECK_EQ(pipe(pipes), 0);
    said = pipes[1];
    wait_where = step;
    pid = start(-1);
    wait_where = NULL;
    CHECK_EQ(close(pipes[1]), 0);
    *told = pipes[0];
    return pid;
}

static void await(int told)
{
    char byte;

    CHECK_EQ(read(told, &byte, 1), 1);
    CHECK_EQ(close(told), 0);
}

/* The same; returns when it is there. */
static pid_t start_and_wait(const char *step)
{
    int told;
    pid_t pid = start_to_stop(step, &told);

    await(told);
    return pid;
}

/* Somebody has joined, and waits for the turn. */
static void await_sleeper(const one *o)
{
    while (!(__atomic_load_n(&o->s->word, __ATOMIC_RELAXED) & CHRON__TURN_WAITERS))
        (void)usleep(1000);
}

static void reap(pid_t pid)
{
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

static void end(pid_t pid)
{
    CHECK_EQ(kill(pid, SIGKILL), 0);
    reap(pid);
}

/* --------------------------------------------------------------------------------------------- tests */

static void test_a_member_takes_and_gives_back(void)
{
    one o;
    chron__member who;

    make_file();
    join(&o);
    for (int i = 0; i < 1000; i++)
        work(&o);
    CHECK_EQ(o.s->first, 1000);
    CHECK_EQ(o.s->repairs, 0);
    CHECK_EQ(chron__turn_is_dead(&o.m, o.m.me), 0);
    chron__turn_owner(&o.m, o.m.me, &who);
    CHECK_EQ(who.pid, getpid());
    CHECK(who.joined_ns > 0);
    leave(&o);
    temporary_remove(path);
}

static void test_slots_are_given_once_and_run_out(void)
{
    one members[SLOTS];
    one late;
    int fd;

    make_file();
    for (uint32_t i = 0; i < SLOTS; i++) {
        join(&members[i]);
        CHECK_EQ(members[i].m.me & CHRON__TURN_SLOT_MASK, i);
    }
    look(&late);
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_EQ(chron__turn_join(&late.m, fd), -EAGAIN);
    leave(&members[3]);
    CHECK_EQ(chron__turn_is_dead(&late.m, members[3].m.me), 1);
    CHECK_EQ(chron__turn_join(&late.m, fd), 0);
    CHECK_EQ(late.m.me & CHRON__TURN_SLOT_MASK, 3);
    CHECK(late.m.me != members[3].m.me);
    CHECK_EQ(chron__turn_is_dead(&members[0].m, members[3].m.me), 1); /* though the slot is taken */
    CHECK_EQ(chron__turn_is_dead(&members[0].m, late.m.me), 0);
    CHECK_EQ(chron__turn_is_dead(&members[0].m, 0x7FFFFFFFu), 1); /* no such slot */
    CHECK_EQ(io->hold(io, fd, late.m.fd, &late.lock), 0);
    leave(&late);
    for (uint32_t i = 0; i < SLOTS; i++)
        if (i != 3)
            leave(&members[i]);
    temporary_remove(path);
}

/* Whoever dies anywhere: the next turn comes, and finds all as it should be. */
static void test_death_at_each_step(void)
{
    static const char *const steps[] = {
        "turn: slot locked", "turn: joined", "test: in the turn", "test: half done", "test: done", "test: given back",
    };
    one o;
    uint64_t repairs = 0;

    make_file();
    join(&o);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        uint64_t turns = o.s->second;

        die_where = steps[i];
        reap(start(5));
        die_where = NULL;
        work(&o);
        CHECK(o.s->second > turns);
        CHECK_EQ(o.s->repairs - repairs, i >= 2 && i <= 4);
        repairs = o.s->repairs;
    }
    leave(&o);
    temporary_remove(path);
}

/* The same for who waits: asleep, just awake, about to take a dead one's turn. */
static void test_death_of_who_waits(void)
{
    static const char *const steps[] = {"turn: announced", "turn: slept", "turn: owner is dead"};
    one o;

    make_file();
    join(&o);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        pid_t holder = start_and_wait("test: half done");
        int told;
        pid_t waiter = start_to_stop(steps[i], &told);

        if (i < 2)
            await(told);
        await_sleeper(&o);
        end(holder);
        if (i == 2)
            await(told);
        end(waiter);
        work(&o);
    }
    CHECK_EQ(o.s->repairs, 3);
    leave(&o);
    temporary_remove(path);
}

/* Who has judged the owner dead, and was slower than somebody else, takes nothing from that one. */
static void test_a_judgement_that_is_late(void)
{
    one o;
    pid_t holder;
    pid_t waiter;
    uint32_t owner;
    int told;

    make_file();
    join(&o);
    holder = start_and_wait("test: half done");
    waiter = start_to_stop("turn: owner is dead", &told);
    await_sleeper(&o);
    end(holder);
    await(told);
    CHECK_EQ(chron__turn_take(&o.m, word_of(&o), LONG_NS, &owner), CHRON__TURN_INHERITED);
    repair(&o);
    CHECK_EQ(waitpid(waiter, NULL, WUNTRACED), waiter);
    CHECK_EQ(kill(waiter, SIGCONT), 0);
    (void)usleep(20000);
    CHECK_EQ(o.s->word & ~CHRON__TURN_WAITERS, o.m.me);
    chron__turn_give(word_of(&o));
    end(waiter);
    work(&o);
    leave(&o);
    temporary_remove(path);
}

/* Who dies after giving back, before it woke who sleeps: that one comes back by itself. */
static void test_a_wake_up_that_is_lost(void)
{
    one o;
    pid_t holder;
    pid_t waiter;
    int status;

    make_file();
    join(&o);
    CHECK(chron__turn_try(&o.m, word_of(&o)));
    waiter = start(1);
    await_sleeper(&o);
    holder = fork();
    if (holder == 0) {
        die_where = "turn: given back, nobody woken";
        chron__on_step = at_step;
        chron__turn_give(word_of(&o));
        _exit(1);
    }
    CHECK_EQ(waitpid(holder, &status, 0), holder);
    CHECK(WIFSIGNALED(status)); /* it was about to wake somebody */
    reap(waiter);
    CHECK_EQ(o.s->second, 1);
    CHECK_EQ(o.s->repairs, 0);
    leave(&o);
    temporary_remove(path);
}

/* The dead owner's slot is given to a newcomer, who has to see to it: its own byte is locked, so it looks alive. */
static void test_a_newcomer_in_a_dead_owners_slot(void)
{
    one o;
    one newcomer;

    make_file();
    end(start_and_wait("test: half done"));
    join(&newcomer); /* inherits */
    CHECK_EQ(newcomer.s->repairs, 1);
    work(&newcomer);
    join(&o);
    work(&o);
    CHECK_EQ(o.s->second, 3);
    leave(&o);
    leave(&newcomer);

    /* A newcomer that dies before it has looked leaves the word to all others. */
    end(start_and_wait("test: half done"));
    die_where = "turn: joined";
    reap(start(1));
    die_where = NULL;
    join(&newcomer);
    CHECK_EQ(newcomer.s->repairs, 2);
    work(&newcomer);
    leave(&newcomer);
    temporary_remove(path);
}

/* Between its locking and the table's, the newcomer looks like the dead owner: nobody takes the turn from it meanwhile. */
static void test_an_owner_that_lives_is_waited_for(void)
{
    one o;
    uint32_t owner = 0;
    char text[64];
    chron__member who;
    pid_t holder;

    make_file();
    join(&o);
    holder = start_and_wait("test: half done");
    CHECK_EQ(chron__turn_take(&o.m, word_of(&o), 30000000, &owner), -ETIMEDOUT);
    chron__turn_owner(&o.m, owner, &who);
    CHECK_EQ(who.pid, holder);
    CHECK_EQ(waitpid(holder, NULL, WUNTRACED), holder);
    CHECK_EQ(chron__turn_take(&o.m, word_of(&o), 30000000, &owner), -ETIMEDOUT);
    chron__turn_describe(&o.m, owner, text, sizeof text);
    CHECK(strstr(text, "which is stopped") != NULL);
    end(holder);
    work(&o);
    CHECK_EQ(o.s->repairs, 1);
    leave(&o);
    temporary_remove(path);
}

static void test_own_word_that_was_left(void)
{
    one o;
    uint32_t owner;

    make_file();
    join(&o);
    CHECK(chron__turn_try(&o.m, word_of(&o)));
    CHECK_EQ(chron__turn_take(&o.m, word_of(&o), LONG_NS, &owner), CHRON__TURN_INHERITED);
    chron__turn_give(word_of(&o));
    work(&o);
    leave(&o);
    temporary_remove(path);
}

/* A child of a fork does not keep its dead parent's slot. */
static void test_a_fork_keeps_nothing(void)
{
    int pipes[2];
    pid_t grandchild = 0;
    pid_t child;
    one o;

    make_file();
    join(&o);
    CHECK_EQ(pipe(pipes), 0);
    child = fork();
    if (child == 0) {
        one mine;

        join(&mine);
        CHECK(chron__turn_try(&mine.m, word_of(&mine)));
        grandchild = fork();
        if (grandchild == 0)
            for (;;)
                (void)pause();
        CHECK_EQ(write(pipes[1], &grandchild, sizeof grandchild), sizeof grandchild);
        (void)kill(getpid(), SIGKILL);
    }
    reap(child);
    CHECK_EQ(read(pipes[0], &grandchild, sizeof grandchild), sizeof grandchild);
    work(&o);
    CHECK_EQ(o.s->repairs, 1);
    CHECK_EQ(kill(grandchild, SIGKILL), 0);
    leave(&o);
    temporary_remove(path);
}

static void test_many_kills(void)
{
    pid_t pids[WRITERS];
    uint32_t random = 1;
    one o;

    make_file();
    join(&o);
    for (int i = 0; i < WRITERS; i++)
        pids[i] = start(-1);
    for (int i = 0; i < KILLS; i++) {
        uint32_t who = (random = random * 1103515245u + 12345u) >> 16;

        (void)usleep(who % 3000u);
        end(pids[who % WRITERS]);
        pids[who % WRITERS] = start(-1);
        if (i % 8 == 0)
            work(&o);
    }
    for (int i = 0; i < WRITERS; i++)
        end(pids[i]);
    work(&o);
    CHECK_EQ(o.s->first, o.s->second);
    printf("    %" PRIu64 " turns, %" PRIu64 " of the dead\n", o.s->second, o.s->repairs);
    leave(&o);
    temporary_remove(path);
}

int main(void)
{
    (void)alarm(120); /* a turn that never comes */
    RUN(test_a_member_takes_and_gives_back);
    RUN(test_slots_are_given_once_and_run_out);
    RUN(test_death_at_each_step);
    RUN(test_death_of_who_waits);
    RUN(test_a_judgement_that_is_late);
    RUN(test_a_wake_up_that_is_lost);
    RUN(test_a_newcomer_in_a_dead_owners_slot);
    RUN(test_an_owner_that_lives_is_waited_for);
    RUN(test_own_word_that_was_left);
    RUN(test_a_fork_keeps_nothing);
    RUN(test_many_kills);
    return 0;
}
