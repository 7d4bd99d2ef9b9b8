package proxy

import "golang.org/x/sys/unix"

const (
	// pipeSize is what one splice can move at best.
	pipeSize = 1 << 20
	// maxSplice is more than any pipe takes.
	maxSplice = 1 << 30
	// sparePipes is how many pipes a loop keeps for the next who needs one.
	sparePipes = 16
)

// pipe holds what is on its way from one socket to another.
type pipe struct{ r, w int }

// pipes are those of one loop that nobody uses; they are empty.
type pipes struct{ spare []*pipe }

// get gives a pipe, or nil when there can be no more.
func (p *pipes) get() *pipe {
	if n := len(p.spare); n > 0 {
		last := p.spare[n-1]
		p.spare = p.spare[:n-1]
		return last
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // or it stays as it is
	return &pipe{r: fds[0], w: fds[1]}
}

// put takes back an empty pipe.
func (p *pipes) put(one *pipe) {
	if len(p.spare) < sparePipes {
		p.spare = append(p.spare, one)
		return
	}
	one.close()
}

func (p *pipes) close() {
	for _, one := range p.spare {
		one.close()
	}
	p.spare = nil
}

func (p *pipe) close() {
	closeFD(p.r)
	closeFD(p.w)
}
