import socket,sys,re
P=int(sys.argv[1]); 
def rss(): return int(re.search(r'VmRSS:\s+(\d+)',open(f'/proc/{P}/status').read())[1])
cs=[]
def add(n):
    for i in range(n):
        s=socket.create_connection(('127.0.0.1',7422)); s.sendall(b'GET /get?id=s%d HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n'%len(cs)); cs.append(s)
        b=b''
        while b'event: synced' not in b: b+=s.recv(4096)
add(1000); a=rss(); add(9000); b=rss(); print('rss',a,b,'bytes/sub',(b-a)*1024/9000)
