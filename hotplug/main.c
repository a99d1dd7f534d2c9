/* SPDX-License-Identifier: Apache-2.0 */
/* secpool-hotplugd: arguments, the loop, and the order of start and end. */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "hotplug/control.h"
#include "hotplug/cxl.h"
#include "hotplug/device.h"
#include "hotplug/notify.h"
#include "hotplug/watch.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

enum { TPM_THREADS = 4, COPY_THREADS = 2, PROBE_THREADS = 4, EXIT_USAGE = 2 };

static const char usage[] =
	"usage: secpool-hotplugd --runtime-dir DIR --devices DIR\n"
	"Watches the devices of the pool, has them attested by secpool-keymgrd and tells it of "
	"each change.\n"
	"  --runtime-dir DIR  where keymgr.sock is and hotplug.sock will be\n"
	"  --devices DIR      what is kept of each device, a folder each; emulated ones are made "
	"there\n"
	"  --cxl              also use this machine's CXL memory that is in devdax mode\n"
	"  --help, --version\n"
	"Runs in the foreground and logs to stderr; SIGTERM ends it. See secpool-hotplugd(8).\n";

/* Exit status, or -1 to go on. */
static int read_arguments(int argc, char **argv, struct hotplug *hotplug)
{
	static const struct option options[] = {
		{"runtime-dir", required_argument, NULL, 'r'},
		{"devices", required_argument, NULL, 'd'},
		{"cxl", no_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	const char *runtime_dir = NULL, *devices = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'r':
			runtime_dir = optarg;
			break;
		case 'd':
			devices = optarg;
			break;
		case 'c':
			hotplug->use_cxl = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		case 'V':
			puts("secpool-hotplugd " SECPOOL_VERSION);
			return EXIT_SUCCESS;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (!runtime_dir || !devices || optind != argc) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (os_runtime_dir(runtime_dir, hotplug->runtime_dir, sizeof hotplug->runtime_dir) ||
		snprintf(hotplug->devices_dir, sizeof hotplug->devices_dir, "%s", devices) >=
			(int)sizeof hotplug->devices_dir) {
		fprintf(stderr, "secpool-hotplugd: %s\n",
			err_detail()[0] ? err_detail() : "--devices: the path is too long");
		return EXIT_USAGE;
	}
	return -1;
}

/* secpool-vtpm is the one beside this program, never one that a PATH names. */
static enum secpool_error find_vtpm(struct hotplug *hotplug)
{
	char *path = hotplug->vtpm_program, *slash;
	static const char name[] = "/secpool-vtpm";
	ssize_t length;

	length = readlink("/proc/self/exe", path, sizeof hotplug->vtpm_program - sizeof name);
	if (length < 0)
		return os_error("read /proc/self/exe");
	path[length] = '\0';
	slash = strrchr(path, '/');
	memcpy(slash ? slash : path + length, name, sizeof name);
	if (access(path, X_OK) != 0)
		return os_error("%s is needed for the devices' TPMs", path);
	return SECPOOL_OK;
}

/* Two daemons on one folder would take each other's media away. The lock ends with the process. */
static enum secpool_error lock_devices(const struct hotplug *hotplug, int *ret_fd)
{
	int fd = open(hotplug->devices_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum secpool_error error;

	if (fd < 0)
		return os_error("open the devices folder %s", hotplug->devices_dir);
	error = os_lock(fd, hotplug->devices_dir);
	if (error == SECPOOL_E_BUSY)
		error = err_set(error, "another secpool-hotplugd serves %s: end it first",
			hotplug->devices_dir);
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

/* Before the first thread, so that all of them leave these signals to the loop. */
static enum secpool_error set_up_loop(struct hotplug *hotplug)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (sd_event_default(&hotplug->loop) < 0 ||
		sd_event_add_signal(hotplug->loop, NULL, SIGTERM, NULL, NULL) < 0 ||
		sd_event_add_signal(hotplug->loop, NULL, SIGINT, NULL, NULL) < 0)
		return err_set(SECPOOL_E_SYSTEM, "the event loop could not be set up");
	return SECPOOL_OK;
}

static enum secpool_error serve(struct hotplug *hotplug)
{
	enum secpool_error error = find_vtpm(hotplug);
	int lock = -1;

	if (!error)
		error = lock_devices(hotplug, &lock);
	if (!error)
		error = set_up_loop(hotplug);
	if (!error)
		error = guarded_copy_install();
	if (!error)
		error = work_new(hotplug->loop, TPM_THREADS, &hotplug->tpm_work);
	if (!error)
		error = work_new(hotplug->loop, COPY_THREADS, &hotplug->copy_work);
	if (!error)
		error = work_new(hotplug->loop, PROBE_THREADS, &hotplug->probe_work);
	if (!error)
		error = control_new(hotplug, &hotplug->control);
	if (!error)
		error = notify_new(hotplug, &hotplug->notify);
	if (!error)
		error = watch_new(hotplug);
	if (!error && hotplug->use_cxl)
		error = cxl_watch_new(hotplug);
	if (!error) {
		log_event(LOG_LEVEL_INFO, "ready", "devices=%u folder=%s", hotplug->device_count,
			hotplug->devices_dir);
		sd_notify(0, "READY=1");
		if (sd_event_loop(hotplug->loop) < 0)
			error = err_set(SECPOOL_E_SYSTEM, "the event loop failed");
		sd_notify(0, "STOPPING=1");
	}
	cxl_watch_free(hotplug->cxl);
	watch_free(hotplug->watch);
	control_free(hotplug->control);
	notify_free(hotplug->notify);
	hotplug->watch = NULL;
	hotplug->control = NULL;
	hotplug->notify = NULL;
	device_stop_all(hotplug);
	work_free(hotplug->copy_work);
	work_free(hotplug->probe_work);
	work_free(hotplug->tpm_work);
	device_free_all(hotplug);
	sd_event_unref(hotplug->loop);
	os_close(&lock);
	return error;
}

int main(int argc, char **argv)
{
	static struct hotplug hotplug = {.limits = HEALTH_LIMITS_DEFAULT};
	enum secpool_error error;
	int status;

	log_init("secpool-hotplugd", LOG_LEVEL_INFO);
	status = read_arguments(argc, argv, &hotplug);
	if (status >= 0)
		return status;
	if (prctl(PR_SET_DUMPABLE, 0) != 0)
		error = os_error("PR_SET_DUMPABLE");
	else
		error = serve(&hotplug);
	if (error)
		log_error("ended", error);
	else
		log_event(LOG_LEVEL_INFO, "ended", "in good order");
	return error ? EXIT_FAILURE : EXIT_SUCCESS;
}
