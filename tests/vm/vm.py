# SPDX-License-Identifier: Apache-2.0
"""A QEMU guest with CXL memory, and what the host does to it: commands in the guest, unplugging, surprise pulls, machine checks. docs/testing.md says what was found out about QEMU 7.2 and Linux 6.1."""
import json
import os
import re
import socket
import subprocess
import time

ECAM = 0xB0000000  # of q35
BUSES = (12, 24, 36, 48)  # of the host bridges, one for each device: each has one HDM decoder here, so one region
MIB = 1 << 20
DEVICE_BYTES = 256 * MIB  # the granularity of regions
DATA_AT = 2 * MIB  # of the devdax device in the backing file: labels and the namespace's own before it
POLL = "pciehp.pciehp_poll_mode=1 pciehp.pciehp_poll_time=1"  # this root port has no interrupt


class Failed(Exception):
    pass


class QemuDied(Failed):
    """QEMU ended by itself: nothing was learnt about secpool."""


def connect(path, process, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            it = socket.socket(socket.AF_UNIX)
            it.connect(path)
            return it
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise Failed(f"QEMU did not start: no {path}")
            time.sleep(0.02)


class Line:
    """A socket read by lines."""

    def __init__(self, sock):
        self.sock = sock
        self.rest = b""

    def send(self, text):
        self.sock.sendall(text.encode() + b"\n")

    def read(self, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self.rest:
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                more = self.sock.recv(65536)
            except (socket.timeout, TimeoutError):
                raise Failed("no answer in time; so far: " + self.rest[-1000:].decode(errors="replace"))
            except OSError as error:
                raise Failed(f"QEMU is gone: {error}")
            if not more:
                raise Failed("the guest is gone")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode(errors="replace").rstrip("\r")


class Vm:
    """
    One CPU: QEMU 7.2 follows a NULL pointer, in its emulation of CXL memory, when a card goes on one CPU's account while another has an access to it (twice in a dozen removals, seen in the kernel's log as a
    segfault of qemu-system-x86 at 0xa0).
    """

    def __init__(self, folder, image, devices=2, tpm=True, extra=(), cpu="max", append="", memory="1G", cpus=1, backing=None, serials=None, qemu=None, volatile=()):
        """qemu: the tree of a QEMU from 10 on (newer.sh), else the installed 7.2. volatile: the devices whose memory is volatile (from 10 on)."""
        self.folder = folder
        self.count = 0
        os.makedirs(folder, exist_ok=True)
        self.backing = backing or [os.path.join(folder, f"mem{i}.raw") for i in range(devices)]
        self.serials = serials or [0x1000 + i for i in range(devices)]
        self.tpm = self.start_tpm() if tpm else None
        self.qemu = qemu
        args = [f"{qemu}/usr/bin/qemu-system-x86_64", *(word for part in (f"{qemu}/usr/share/qemu", "/usr/share/seabios", "/usr/share/qemu") for word in ("-L", part))] if qemu else ["qemu-system-x86_64"]
        args += ["-M", "q35,cxl=on", "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", str(cpus), "-m", memory]
        args += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-net", "none"]
        args += ["-kernel", image + ".kernel", "-initrd", image + ".initrd"]
        args += ["-append", f"console=ttyS0 quiet loglevel=4 nokaslr mitigations=off panic=-1 random.trust_cpu=on tsc=reliable secretmem.enable=1 {POLL} {append}"]
        args += ["-chardev", f"file,id=console,path={folder}/console.log", "-serial", "chardev:console"]
        args += ["-chardev", f"socket,id=shell,path={folder}/shell,server=on,wait=off", "-serial", "chardev:shell"]
        args += ["-qmp", f"unix:{folder}/qmp,server=on,wait=off", "-qtest", f"unix:{folder}/qtest,server=on,wait=off", "-qtest-log", "none"]
        args += ["-M", ",".join(f"cxl-fmw.{i}.targets.0=cxl.{i},cxl-fmw.{i}.size=1G" for i in range(devices))]
        for i in range(devices):
            args += ["-device", f"pxb-cxl,bus_nr={BUSES[i]},bus=pcie.0,id=cxl.{i}"]
            # with one root port on a bridge every store is lost
            for port in range(2):
                args += ["-device", f"cxl-rp,port={port},bus=cxl.{i},id=rp{i}.{port},chassis={i},slot={2 * i + port + 2}"]
            for path, size in ((self.backing[i], DEVICE_BYTES), (f"{folder}/lsa{i}.raw", MIB)):
                with open(path, "ab") as file:
                    file.truncate(size)
            args += ["-object", f"memory-backend-file,id=mem{i},share=on,mem-path={self.backing[i]},size=256M"]
            args += ["-object", f"memory-backend-file,id=lsa{i},share=on,mem-path={folder}/lsa{i}.raw,size=1M"]
            args += ["-device", f"cxl-type3,bus=rp{i}.0,{'volatile-memdev' if i in volatile else 'persistent-memdev' if qemu else 'memdev'}=mem{i},lsa=lsa{i},id=t{i},sn={self.serials[i]}"]
        if tpm:
            args += ["-chardev", f"socket,id=tpm,path={folder}/tpm/sock", "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"]
        self.output = open(f"{folder}/qemu.out", "wb")
        self.process = subprocess.Popen([*args, *extra], stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT)
        self.shell = Line(connect(f"{folder}/shell", self.process))
        self.monitor = Line(connect(f"{folder}/qmp", self.process))
        self.monitor.read(20)
        self.qmp("qmp_capabilities")
        self.test = Line(connect(f"{folder}/qtest", self.process))

    def died(self):
        """Whether QEMU is gone, though nobody told it to go; a little later it is, when its sockets are closed."""
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            return False
        return True

    def start_tpm(self):
        state = f"{self.folder}/tpm"
        os.makedirs(state, exist_ok=True)
        process = subprocess.Popen(["swtpm", "socket", "--terminate", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={state}/sock"], stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while not os.path.exists(f"{state}/sock"):
            if process.poll() is not None or time.monotonic() > end:
                raise Failed("swtpm did not start")
            time.sleep(0.02)
        return process

    def boot(self, seconds=180):
        while self.shell.read(seconds) != "@@ready":
            pass

    def run(self, command, seconds=120, check=True):
        """Runs a line in the guest; its output. Failed when its status is not 0, unless check is False: then (status, output)."""
        self.count += 1
        end = f"@@{self.count} "
        command = command.rstrip()
        self.shell.send(f'{{ {command}{"" if command.endswith("&") else ";"} }} 2>&1; echo "{end}"$?')
        lines = []
        deadline = time.monotonic() + seconds
        while True:
            line = self.shell.read(max(0.1, deadline - time.monotonic()))
            at = line.find(end)
            if line == "@@broken":
                raise Failed(f"the guest's shell refused: {command}")
            if at >= 0:
                break
            lines.append(line)
        if at > 0:
            lines.append(line[:at])
        status, output = int(line[at + len(end):]), "\n".join(lines)
        if not check:
            return status, output
        if status != 0:
            raise Failed(f"in the guest: {command}: status {status}: {output[-2000:]}")
        return output

    def await_(self, command, pattern, seconds=120, pause=0.3):
        """Runs a line until its output matches; the match."""
        end = time.monotonic() + seconds
        while True:
            _, output = self.run(command, check=False)
            found = re.search(pattern, output, re.S)
            if found:
                return found
            if time.monotonic() > end:
                raise Failed(f"in the guest, {seconds} s: {command}: no {pattern!r} in: {output[-3000:]}")
            time.sleep(pause)

    def qmp(self, command, **arguments):
        self.monitor.send(json.dumps({"execute": command, "arguments": {k.replace("_", "-") if k.endswith("line") else k: v for k, v in arguments.items()}}))
        while True:
            answer = json.loads(self.monitor.read(60))
            if "event" not in answer:
                return answer

    def qtest(self, command):
        self.test.send(command)
        words = self.test.read(20).split()
        return int(words[1], 16) if len(words) > 1 else None

    # ---- what happens to a device ----

    def unplug(self, i):
        """As a person asks for it with the button: the guest's kernel takes it out in good order, 5 s later."""
        answer = self.qmp("device_del", id=f"t{i}")
        if "error" in answer:
            raise Failed(f"device_del: {answer}")

    def pull(self, i):
        """The card is gone at once; the kernel notices at its next poll, up to a second later. Slot Control is put back, or the kernel would think that it had done it.
        Between two instructions of the guest's: QEMU 7.2 crashes now and then when a card goes while a CPU has an access to it in flight."""
        port = ECAM + (BUSES[i] << 20)
        cap = self.qtest(f"readb {port + 0x34:#x}")
        while self.qtest(f"readb {port + cap:#x}") != 0x10:
            cap = self.qtest(f"readb {port + cap + 1:#x}")
        control = self.qtest(f"readw {port + cap + 0x18:#x}")
        self.qmp("stop")
        self.qtest(f"writew {port + cap + 0x18:#x} {(control & ~0x300) | 0x700:#x}")
        self.qtest(f"writew {port + cap + 0x18:#x} {control:#x}")
        self.qmp("cont")

    def plug(self, i, seconds=30):
        """The card of before is back. QEMU 7.2 tells nobody when its slot is free: asked until it is."""
        end = time.monotonic() + seconds
        while True:
            answer = self.qmp("device_add", driver="cxl-type3", bus=f"rp{i}.0", memdev=f"mem{i}", lsa=f"lsa{i}", id=f"t{i}", sn=self.serials[i])
            if "error" not in answer:
                return
            if time.monotonic() > end:
                raise Failed(f"device_add: {answer}")
            time.sleep(0.2)

    def machine_check(self, address):
        """An uncorrected error that the CPU met when it read there (SRAR: Intel SDM volume 3, 16.9.3)."""
        line = f"mce 0 9 {0xBD80000000000134:#x} 0x7 {address:#x} 0x8c"
        return self.qmp("human-monitor-command", command_line=line)

    def stop(self):
        try:
            self.qmp("quit")
        except (Failed, OSError, ValueError):
            pass
        for process in (self.process, self.tpm):
            if not process:
                continue
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.output.close()

    def console(self):
        with open(f"{self.folder}/console.log", errors="replace") as file:
            return file.read()
